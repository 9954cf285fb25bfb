"""Plots how two caches differ: entropies of both, and the divergence per frame."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from distinit.pipeline.combining.comparing import ENTROPY_BINS, KL_EDGES_NATS, TeacherComparison
from distinit.pipeline.plotting.canvas import (
    GAIN,
    LOSS,
    PAGE_INCHES,
    SMALL,
    new_figure,
    plain_axes,
    plain_text,
    title,
)
from distinit.pipeline.plotting.rendering import short_label

__all__ = ["diff_figure"]

_HEIGHT_INCHES = 2.6
_PLOTTED_BINS = 50
_NAME_LETTERS = 40


def diff_figure(comparison: TeacherComparison) -> Figure:
    """Left: distributions of the entropies in A and B. Right: frames by KL(A || B)."""
    figure = new_figure(PAGE_INCHES, _HEIGHT_INCHES)
    left, right = figure.subplots(1, 2)
    _entropies(left, comparison)
    _divergences(right, comparison)
    names = [short_label(t.id, _NAME_LETTERS) for t in (comparison.teacher_a, comparison.teacher_b)]
    title(figure, f"A: {names[0]}   B: {names[1]}   {comparison.frames:,} shared frames")
    return plain_text(figure)


def _entropies(axes: Axes, comparison: TeacherComparison) -> None:
    edges = np.linspace(0, comparison.highest_nats, _PLOTTED_BINS + 1)
    grouped = comparison.entropy_counts.reshape(2, _PLOTTED_BINS, ENTROPY_BINS // _PLOTTED_BINS)
    shares = grouped.sum(axis=2) / max(comparison.frames, 1)
    for label, colour, style, share in zip("AB", (GAIN, LOSS), "-:", shares, strict=True):
        axes.stairs(share, edges, color=colour, label=label, linestyle=style, linewidth=1.2)
    axes.set_xlabel("entropy, nats")
    axes.set_ylabel("share of the frames")
    axes.legend(frameon=False, fontsize=SMALL)
    plain_axes(axes)


def _divergences(axes: Axes, comparison: TeacherComparison) -> None:
    share = comparison.kl_counts / max(comparison.frames, 1)
    axes.stairs(share, KL_EDGES_NATS, color=GAIN, fill=True)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda nats, _: f"{nats:g}"))
    axes.set_xlabel("KL(A || B) of a frame, nats")
    axes.set_ylabel("share of the frames")
    plain_axes(axes)
