"""Plots the losses of a run, smoothed, its learning rate, and its accuracies if it has some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = ["ACCURACIES", "draw_curve", "loss_names", "moving_mean"]

ACCURACIES = {"per_clip": "per clip", "top1": "top-1", "top5": "top-5"}
"""Names of accuracies in lines of evaluations, and for people."""

_WINDOWS = 40  # a smoothed point averages over one fortieth of the run


def moving_mean(values_N: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean of each value and the ``width - 1`` before it, or of fewer at the start."""
    sums_N = np.cumsum(values_N)
    sums_N[width:] -= sums_N[:-width].copy()
    return sums_N / np.minimum(np.arange(1, len(values_N) + 1), width)


def loss_names(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """``loss``, and the losses of the heads if there are several heads."""
    heads = sorted({name for line in lines for name in line if name.startswith("loss/")})
    return ["loss", *heads] if len(heads) > 1 else ["loss"]


def draw_curve(
    lines: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]] = ()
) -> bytes:
    """The plot as PNG bytes: each loss drawn faintly, and its moving mean on top.

    Below it are the accuracies of ``evaluations``, if there are any.
    """
    lines = [line for line in lines if {"epoch", "learning_rate"} <= line.keys()]
    figure = Figure(figsize=(7, 6.5 if evaluations else 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes, *below = figure.subplots(2 if evaluations else 1, sharex=True, squeeze=False)[:, 0]
    _draw_losses(axes, lines)
    for accuracy in below:
        _draw_accuracies(accuracy, evaluations)
    (below or [axes])[-1].set_xlabel("epoch")
    png = BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()


def _draw_losses(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    rate = axes.twinx()
    epoch_N = np.array([line["epoch"] for line in lines])
    rate.plot(epoch_N, [line["learning_rate"] for line in lines], color="0.6", linestyle=":")
    rate.set_ylabel("learning rate (dotted)", color="0.4")
    names = loss_names(lines)
    for number, name in enumerate(names):
        loss_N = np.array([line.get(name, np.nan) for line in lines], np.float64)
        smooth_N = moving_mean(loss_N, max(1, len(lines) // _WINDOWS))
        axes.plot(epoch_N, loss_N, color=f"C{number}", alpha=0.25, linewidth=0.8)
        axes.plot(epoch_N, smooth_N, color=f"C{number}", label=name.removeprefix("loss/"))
    axes.set_zorder(rate.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.set_ylabel("training loss")
    if len(names) > 1:
        axes.legend(frameon=False)


def _draw_accuracies(axes: Axes, evaluations: Sequence[Mapping[str, Any]]) -> None:
    epoch_N = [line.get("epoch", np.nan) for line in evaluations]
    for name, label in ACCURACIES.items():
        if not any(name in line for line in evaluations):  # top-5 of a few classes
            continue
        axes.plot(epoch_N, [line.get(name, np.nan) for line in evaluations], ".-", label=label)
    axes.set_ylim(0, 100)
    axes.set_ylabel("test accuracy (%)")
    axes.legend(frameon=False)
