"""Plots the losses of a run, smoothed, its learning rate, and its accuracies if it has some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from distinit.pipeline.plotting.canvas import (
    BODY,
    GRID,
    INK,
    MUTED,
    PAGE_INCHES,
    SMALL,
    new_figure,
    plain_axes,
    plain_text,
    title,
)
from distinit.pipeline.plotting.rendering import figure_png, short_label
from distinit.pipeline.training.metrics import LOWEST_LOSS
from distinit.schemas.evaluation import ScoredSubset
from distinit.schemas.wording import one_line

__all__ = ["ACCURACIES", "curve_figure", "draw_curve", "loss_names", "moving_mean"]

ACCURACIES = {"per_clip": "per clip", "top1": "top-1", "top5": "top-5"}
"""Names of accuracies in lines of evaluations, and for people."""

_MARKED_LINES = 12  # with at most so many metric lines, each is marked
_WINDOWS = 40  # a smoothed point averages over one fortieth of the run
_TITLE_LETTERS = 90
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito

Lines = Sequence[Mapping[str, Any]]


def moving_mean(values_N: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean of each value and the ``width - 1`` before it, or of fewer at the start."""
    sums_N = np.cumsum(values_N)
    sums_N[width:] -= sums_N[:-width].copy()
    return sums_N / np.minimum(np.arange(1, len(values_N) + 1), width)


def loss_names(lines: Lines) -> list[str]:
    """``loss``, and the losses of the heads if there are several heads."""
    heads = sorted({name for line in lines for name in line if name.startswith("loss/")})
    return ["loss", *heads] if len(heads) > 1 else ["loss"]


def draw_curve(
    lines: Lines,
    evaluations: Lines = (),
    heading: str = "",
    watched: ScoredSubset = "test",
    unit: str = "",
) -> bytes:
    """PNG bytes of ``curve_figure``."""
    return figure_png(curve_figure(lines, evaluations, heading, watched, unit))


def curve_figure(
    lines: Lines,
    evaluations: Lines = (),
    heading: str = "",
    watched: ScoredSubset = "test",
    unit: str = "",
) -> Figure:
    """Each loss against the step, drawn faintly, and its moving mean on top.

    Below it are the accuracies of ``evaluations``, if there are several, on the ``watched`` videos.
    ``heading``: the kind and name of the run; the last loss and accuracies stand below it.
    ``unit``: that of the losses, if all have one.
    """
    lines = [line for line in lines if {"step", "epoch", "learning_rate", "loss"} <= line.keys()]
    evaluations = [line for line in evaluations if "step" in line]
    with_accuracies = len(evaluations) > 1
    figure = new_figure(PAGE_INCHES, 5.6 if with_accuracies else 3.6)
    rows = 2 if with_accuracies else 1
    axes, *below = figure.subplots(rows, sharex=True, squeeze=False)[:, 0]
    _draw_losses(axes, lines, unit)
    for accuracy in below:
        _draw_accuracies(accuracy, evaluations, watched)
    _step_axis((below or [axes])[-1], lines)
    title(figure, short_label(heading, _TITLE_LETTERS), _last_values(lines, evaluations))
    return plain_text(figure)


def _last_values(lines: Lines, evaluations: Lines) -> str:
    if not lines:
        return "no metric lines yet"
    last = lines[-1]
    values = [f"step {last['step']:,} (epoch {last['epoch']:.3g})", f"loss {last['loss']:.3f}"]
    if evaluations:
        shown = [(label, evaluations[-1].get(name)) for name, label in ACCURACIES.items()]
        values += [f"{label} {value:.1f} %" for label, value in shown if value is not None]
    return "   ".join(values)


def _step_axis(axes: Axes, lines: Lines) -> None:
    steps_per_epoch = lines[-1]["step"] / lines[-1]["epoch"] if lines and lines[-1]["epoch"] else 0
    epoch = f" (one epoch: {round(steps_per_epoch):,} steps)" if steps_per_epoch >= 1 else ""
    axes.set_xlabel(f"optimiser step{epoch}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.set_xlim(0, max(1, lines[-1]["step"]) if lines else 1)


def _draw_losses(axes: Axes, lines: Lines, unit: str) -> None:
    step_N = np.array([line["step"] for line in lines])
    width = max(1, len(lines) // _WINDOWS)
    names = loss_names(lines)
    for number, name in enumerate(names):
        colour = _COLOURS[number % len(_COLOURS)]
        loss_N = np.array([line.get(name, np.nan) for line in lines], np.float64)
        label = one_line(name.removeprefix("loss/")) if number else "loss"
        if width > 1:
            axes.plot(step_N, loss_N, color=colour, alpha=0.25, linewidth=0.8)
            label += f", mean of {width} lines" if len(names) == 1 else ""
        (drawn,) = axes.plot(
            step_N, moving_mean(loss_N, width), color=colour, linewidth=1.5, label=label, zorder=3
        )
        drawn.set(marker=_marker(lines), markersize=4, clip_on=False)
    _draw_bound(axes, lines, step_N, width)
    _draw_rate(axes, lines, step_N)
    axes.set_ylabel(f"training loss, {unit}" if unit else "training loss")
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    plain_axes(axes)


def _marker(lines: Lines) -> str:
    """Few points are marked: a line through one point is not visible."""
    return "o" if len(lines) <= _MARKED_LINES else ""


def _draw_bound(axes: Axes, lines: Lines, step_N: NDArray[np.int64], width: int) -> None:
    if not any(line.get(LOWEST_LOSS, 0) > 0 for line in lines):
        return
    bound_N = np.array([line.get(LOWEST_LOSS, np.nan) for line in lines], np.float64)
    label = "lowest possible loss"
    bound_N = moving_mean(bound_N, width)
    (drawn,) = axes.plot(step_N, bound_N, "--", color=INK, linewidth=1, label=label)
    drawn.set(marker=_marker(lines), markersize=4, clip_on=False)


def _draw_rate(axes: Axes, lines: Lines, step_N: NDArray[np.int64]) -> None:
    """The learning rate, on the right axis, and a legend that names all lines."""
    rate = axes.twinx()
    rates = [line["learning_rate"] for line in lines]
    # A line has the rate of the steps before it, so that a step of the schedule stays one.
    label = "learning rate (right)"
    drawn = rate.plot(
        step_N, rates, ":", color=MUTED, linewidth=1, label=label, drawstyle="steps-pre"
    )
    drawn[0].set(marker=_marker(lines), markersize=4, clip_on=False)
    rate.set_ylim(0, 1.08 * max(rates, default=0) or 1)
    plain_axes(rate)
    rate.spines["right"].set(visible=True, color=MUTED, linewidth=0.6)
    rate.spines["left"].set_visible(False)
    rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    rate.set_ylabel("learning rate", fontsize=BODY, color=INK)
    axes.set_zorder(rate.get_zorder() + 1)
    axes.patch.set_visible(False)
    handles = [*axes.get_legend_handles_labels()[0], *drawn]
    axes.legend(
        handles=handles,
        frameon=False,
        fontsize=SMALL,
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
    )


def _draw_accuracies(axes: Axes, evaluations: Lines, watched: ScoredSubset) -> None:
    step_N = [line["step"] for line in evaluations]
    for number, (name, label) in enumerate(ACCURACIES.items()):
        accuracy_N = [line.get(name, np.nan) for line in evaluations]
        if not np.isnan(accuracy_N).all():
            axes.plot(step_N, accuracy_N, ".-", color=_COLOURS[number], label=label, clip_on=False)
    axes.set_ylim(0, 100)
    axes.set_ylabel(f"{watched} accuracy (%)")
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    plain_axes(axes)
    axes.legend(frameon=False, fontsize=SMALL)
