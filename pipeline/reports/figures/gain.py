"""Gain in accuracy per class between two runs, sorted (Fig. 7 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from distinit.pipeline.plotting.canvas import (
    BODY,
    GAIN,
    GRID,
    INK,
    LOSS,
    MUTED,
    PAGE_INCHES,
    SMALL,
    new_figure,
    plain_axes,
    plain_text,
    title,
)
from distinit.pipeline.plotting.rendering import short_label
from distinit.schemas.wording import counted

__all__ = ["SHOWN_CLASSES", "ClassGains", "draw_all_gains", "draw_gain"]

Ints = NDArray[np.int64]

SHOWN_CLASSES = 30
"""Most classes that fit on one page; of more, the highest and lowest gains are shown."""

_WIDTH_INCHES = 0.75 * PAGE_INCHES
_BAR_INCHES = 0.165
_FRAME_INCHES = 1.1  # title and axis
_LETTERS, _LABEL_LETTERS = 28, 30
_AXIS = "gain in top-1 accuracy (percentage points)"
_ROWS_PER_COLUMN = 55
_MOST_COLUMNS = 20  # of the figure with all classes; a PDF page is at most 200 inches wide


@dataclass(frozen=True, slots=True)
class ClassGains:
    """Correct test videos per class in two runs over the same test videos."""

    names: Sequence[str]
    videos_C: Ints
    """Test videos per class, including those that could not be decoded."""
    base_correct_C: Ints
    correct_C: Ints
    base_label: str
    label: str

    def points(self) -> NDArray[np.float64]:
        """Gain per class in percentage points: [C]; NaN for a class without test videos."""
        with np.errstate(invalid="ignore"):
            points_C: NDArray[np.float64] = (
                100.0 * (self.correct_C - self.base_correct_C) / self.videos_C
            )
        return points_C

    def order(self) -> Ints:
        """Classes that have test videos, from the highest gain to the lowest; ties by index."""
        order_C = np.argsort(-self.points(), kind="stable")
        return order_C[self.videos_C[order_C] > 0]


def draw_gain(gains: ClassGains) -> Figure:
    """Horizontal bars, from the highest gain to the lowest.

    Of more than SHOWN_CLASSES classes, the first and the last half of SHOWN_CLASSES are shown.
    """
    order = gains.order()
    half = SHOWN_CLASSES // 2
    hidden = len(order) - SHOWN_CLASSES
    if hidden > 0:
        order = np.concatenate([order[:half], order[-half:]])
    figure = new_figure(_WIDTH_INCHES, _FRAME_INCHES + _BAR_INCHES * (len(order) + 1))
    axes = figure.add_subplot()
    positions = np.arange(len(order), dtype=np.float64)
    if hidden > 0:
        positions[half:] += 1
        text = f"  … {hidden} more classes …"
        axes.text(0, half, text, ha="left", va="center", fontsize=SMALL, color=MUTED)
    _draw_bars(axes, gains, order, positions)
    axes.set_xlabel(_AXIS, fontsize=BODY, color=INK)
    _describe(figure, gains)
    return plain_text(figure)


def draw_all_gains(gains: ClassGains) -> Figure:
    """As ``draw_gain`` with all classes (at most 1,100), in several columns of bars."""
    order = gains.order()[: _ROWS_PER_COLUMN * _MOST_COLUMNS]
    columns = max(1, math.ceil(len(order) / _ROWS_PER_COLUMN))
    rows = math.ceil(len(order) / columns)
    width = max(_WIDTH_INCHES, PAGE_INCHES / 2 * columns)
    figure = new_figure(width, _FRAME_INCHES + _BAR_INCHES * rows)
    for column, axes in enumerate(np.ravel(figure.subplots(1, columns))):
        part = order[column * rows :][:rows]
        _draw_bars(axes, gains, part, np.arange(len(part), dtype=np.float64))
        axes.set_ylim(rows - 0.4, -0.6)
    figure.supxlabel(_AXIS, fontsize=BODY, color=INK)
    _describe(figure, gains)
    return plain_text(figure)


def _draw_bars(axes: Axes, gains: ClassGains, order: Ints, positions: NDArray[np.float64]) -> None:
    points = gains.points()[order]
    colours = [GAIN if value >= 0 else LOSS for value in points]
    axes.barh(positions, points, height=0.72, color=colours)
    axes.axvline(0, color=INK, linewidth=0.6)
    names = [short_label(gains.names[index], _LETTERS) for index in order]
    axes.set_yticks(positions, names)
    axes.set_ylim(positions.max(initial=0) + 0.6, -0.6)
    axes.set_xlim(_limits(gains))
    plain_axes(axes)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _limits(gains: ClassGains) -> tuple[float, float]:
    """The range of the axis, which all columns share; it contains 0."""
    points = gains.points()[gains.order()]
    low, high = float(points.min(initial=0)), float(points.max(initial=0))
    margin = max(1.0, 0.04 * (high - low))
    return low - margin, high + margin


def _describe(figure: Figure, gains: ClassGains) -> None:
    total = max(1, int(gains.videos_C.sum()))
    base, top1 = (100 * int(c.sum()) / total for c in (gains.base_correct_C, gains.correct_C))
    points = gains.points()[gains.order()]
    counts = [int((points > 0).sum()), int((points < 0).sum())]
    better = counted(counts[0], "class", "classes")
    videos = gains.videos_C[gains.order()]
    low, high = int(videos.min(initial=total)), int(videos.max(initial=0))
    label, base_label = (
        short_label(name, _LABEL_LETTERS) for name in (gains.label, gains.base_label)
    )
    title(
        figure,
        f"{label} against {base_label}",
        f"top-1 {top1:.1f} % against {base:.1f} %; {better} better, {counts[1]} worse",
        f"{low if low == high else f'{low} to {high}'} test videos per class",
    )
