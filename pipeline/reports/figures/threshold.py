"""Accuracy against the confidence threshold, over the density of entropies (paper Fig. 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from distinit.pipeline.evaluation.intervals import wilson_interval
from distinit.pipeline.plotting.canvas import (
    BODY,
    GAIN,
    INK,
    MUTED,
    PAGE_INCHES,
    PALE,
    SMALL,
    new_figure,
    plain_axes,
    plain_text,
)
from distinit.pipeline.reports.plots import entropy_density
from distinit.schemas.audit import EntropyHistogram

__all__ = ["ThresholdPoint", "draw_threshold"]

_SIZE_INCHES = (0.72 * PAGE_INCHES, 3.2)
_DODGE = 0.012  # between runs of one threshold, as a share of the axis
_CLOSEST_LABELS = 0.075  # as a share of the axis; closer labels at the top are left out


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """One finetuned run."""

    threshold_nats: float | None
    """The largest entropy of a target that its distillation kept; None: no filter."""
    correct: int
    """Test videos that are classified correctly."""
    videos: int
    """Test videos."""

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * self.correct / self.videos


def draw_threshold(
    histogram: EntropyHistogram,
    threshold_of_kept: Mapping[float, float],
    points: Sequence[ThresholdPoint],
) -> Figure:
    """Points with 95 % intervals (Wilson); a line connects the means at each threshold.

    ``histogram``: of the entropies of the targets. Runs without a filter are drawn at the end of
    its last bin with frames. ``threshold_of_kept``: share of the frames -> threshold in nats that
    keeps it, for the axis at the top.
    """
    figure = new_figure(*_SIZE_INCHES)
    axes = figure.add_subplot()
    filled = np.flatnonzero(histogram.frames)
    highest_nats = histogram.edges_nats[int(filled[-1]) + 1 if len(filled) else -1]
    _draw_density(axes, histogram)
    _draw_points(axes, points, highest_nats)
    axes.set_xlim(0, 1.02 * highest_nats)
    axes.set_xlabel("threshold: highest entropy of a target that is kept (nats)")
    axes.set_ylabel("top-1 accuracy (%), 95 % interval")
    plain_axes(axes)
    _mark_kept(axes, threshold_of_kept, highest_nats)
    return plain_text(figure)


def _draw_density(axes: Axes, histogram: EntropyHistogram) -> None:
    """On an axis of its own, without ticks, behind the points."""
    behind = axes.twinx()
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    entropy_nats, density = entropy_density(histogram)
    if not len(density):  # all frames in one bin
        edges = np.array(histogram.edges_nats)
        entropy_nats = np.repeat(edges, 2)
        shares = np.array(histogram.frames) / max(1, sum(histogram.frames))
        density = np.concatenate([[0], np.repeat(shares / np.diff(edges), 2), [0]])
    behind.fill_between(entropy_nats, density, color=PALE, linewidth=0)
    behind.set_ylim(0, 1.25 * float(density.max(initial=0)) or 1)
    behind.set_yticks([])
    behind.spines[:].set_visible(False)
    behind.set_ylabel("density of the teacher's entropies", fontsize=BODY, color=MUTED)


def _draw_points(axes: Axes, points: Sequence[ThresholdPoint], highest_nats: float) -> None:
    x_P = np.array([_place(point, highest_nats) for point in points])
    top1_P = np.array([point.top1 for point in points])
    ends_P2 = 100 * np.array([wilson_interval(point.correct, point.videos) for point in points])
    places = np.unique(x_P)
    means = [top1_P[x_P == place].mean() for place in places]
    axes.plot(places, means, color=GAIN, linewidth=1.2)
    axes.errorbar(
        x_P + _DODGE * highest_nats * _rank_among_equal(x_P),
        top1_P,
        yerr=np.abs(ends_P2.T - top1_P),
        fmt="o",
        color=GAIN,
        markersize=4.5,
        capsize=2.5,
        linewidth=1,
        clip_on=False,
    )
    unfiltered = [point.top1 for point in points if point.threshold_nats is None]
    if unfiltered:
        axes.annotate(
            "no filter",
            (highest_nats, max(unfiltered)),
            (-6, 5),
            textcoords="offset points",
            ha="right",
            fontsize=SMALL,
            color=INK,
        )


def _place(point: ThresholdPoint, highest_nats: float) -> float:
    """A threshold above the highest entropy keeps as much as no filter."""
    if point.threshold_nats is None:
        return highest_nats
    return min(point.threshold_nats, highest_nats)


def _rank_among_equal(x_P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moves points of one place apart: 0 for a single one, -.5 and .5 for two of them."""
    rank_P = np.array([np.sum(x_P[:number] == x) for number, x in enumerate(x_P)], np.float64)
    count_P = np.array([np.sum(x_P == x) for x in x_P])
    return rank_P - (count_P - 1) / 2


def _mark_kept(axes: Axes, threshold_of_kept: Mapping[float, float], highest_nats: float) -> None:
    """Label the axis at the top with shares of the frames.

    Where labels would overlap, the one that is nearer to 50 % is shown.
    """
    shown = [(highest_nats, "100")]
    for kept in sorted(threshold_of_kept, key=lambda kept: abs(kept - 0.5)):
        nats, label = threshold_of_kept[kept], f"{100 * kept:.0f}"
        if all(abs(nats - other) >= _CLOSEST_LABELS * highest_nats for other, _ in shown):
            shown.append((nats, label))
    top = axes.secondary_xaxis("top")
    top.set_xticks([nats for nats, _ in shown], [label for _, label in shown])
    top.set_xlabel("frames kept (%)", fontsize=BODY, color=INK)
    top.tick_params(labelsize=SMALL, length=2.5, width=0.6, color=MUTED, labelcolor=INK)
    top.spines["top"].set_color(MUTED)
    top.spines["top"].set_linewidth(0.6)
