"""The most confused pairs of classes of a run, or what changed between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from distinit.pipeline.plotting.canvas import (
    GAIN,
    GRID,
    LOSS,
    MINUS,
    MUTED,
    PAGE_INCHES,
    SMALL,
    new_figure,
    plain_axes,
    plain_text,
    title,
)
from distinit.pipeline.plotting.rendering import short_label

__all__ = ["ConfusedPair", "Confusions", "changed_pairs", "confused_pairs", "draw_confused"]

Ints = NDArray[np.int64]

_ROW_INCHES = 0.2
_FRAME_INCHES = 1.1
_LETTERS, _LABEL_LETTERS = 26, 50


@dataclass(frozen=True, slots=True)
class Confusions:
    """Predictions of one run."""

    label: str
    counts_CC: Ints
    """Number of test videos [true class][predicted class]."""


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Test videos of class ``true`` that a run predicts as class ``predicted``."""

    true: int
    predicted: int
    videos: int
    base_videos: int | None = None
    """The same number in the run that is compared with, if there is one."""


def confused_pairs(run: Confusions, count: int) -> list[ConfusedPair]:
    """The ``count`` pairs of most videos, in descending order; ties by class index."""
    pairs = _off_diagonal(run.counts_CC)
    order = sorted(pairs, key=lambda pair: (-run.counts_CC[pair], pair))
    return [ConfusedPair(*pair, int(run.counts_CC[pair])) for pair in order[:count]]


def changed_pairs(base: Confusions, run: Confusions, count: int) -> list[ConfusedPair]:
    """The ``count`` pairs that changed most, from the largest decrease to the largest increase."""
    change_CC = run.counts_CC - base.counts_CC
    order = sorted(_off_diagonal(change_CC), key=lambda pair: (-abs(change_CC[pair]), pair))
    chosen = sorted(order[:count], key=lambda pair: (change_CC[pair], pair))
    return [
        ConfusedPair(*pair, int(run.counts_CC[pair]), int(base.counts_CC[pair])) for pair in chosen
    ]


def draw_confused(
    names: Sequence[str], videos_C: Ints, run: Confusions, base: Confusions | None, count: int
) -> Figure:
    """Bars of the most confused pairs of ``run``, or with ``base`` those that changed most.

    ``videos_C``: test videos per class.
    """
    pairs = confused_pairs(run, count) if base is None else changed_pairs(base, run, count)
    figure = new_figure(PAGE_INCHES * 0.85, _FRAME_INCHES + _ROW_INCHES * max(3, len(pairs)))
    axes = figure.add_subplot()
    if base is None:
        _draw_bars(axes, pairs, videos_C)
    else:
        _draw_changes(axes, pairs)
    _describe(figure, run, base)
    short = [short_label(name, _LETTERS) for name in names]
    labels = [f"{short[pair.true]} → {short[pair.predicted]}" for pair in pairs]
    axes.set_yticks(range(len(pairs)), labels)
    axes.set_ylim(max(3, len(pairs)) - 0.4, -0.6)
    axes.set_xlim(left=0)
    plain_axes(axes)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("test videos (true class → predicted class)")
    return plain_text(figure)


def _off_diagonal(counts_CC: Ints) -> list[tuple[int, int]]:
    true_N, predicted_N = np.nonzero(counts_CC)
    return [(t, p) for t, p in zip(true_N.tolist(), predicted_N.tolist(), strict=True) if t != p]


def _draw_bars(axes: Axes, pairs: Sequence[ConfusedPair], videos_C: Ints) -> None:
    axes.barh(range(len(pairs)), [pair.videos for pair in pairs], height=0.7, color=LOSS)
    for row, pair in enumerate(pairs):
        share = f"{100 * pair.videos / max(1, videos_C[pair.true]):.0f} %"
        _note(axes, pair.videos, row, f"{pair.videos} of {videos_C[pair.true]} ({share})")
    axes.margins(x=0.32)


def _draw_changes(axes: Axes, pairs: Sequence[ConfusedPair]) -> None:
    """A line per pair, from the number in the base run (open circle) to that in the other."""
    for row, pair in enumerate(pairs):
        base = pair.base_videos or 0
        colour = GAIN if pair.videos < base else LOSS
        axes.plot([base, pair.videos], [row, row], color=colour, linewidth=1.6, zorder=2)
        for x, face, edge in ((base, "white", MUTED), (pair.videos, colour, colour)):
            axes.plot(
                x, row, "o", markersize=5, color=face, markeredgecolor=edge, clip_on=False, zorder=3
            )
        _note(axes, max(base, pair.videos), row, f"{pair.videos - base:+d}".replace("-", MINUS))
    axes.margins(x=0.1)
    axes.grid(axis="x", color=GRID, linewidth=0.6)


def _note(axes: Axes, x: float, row: int, text: str) -> None:
    axes.annotate(
        text,
        (x, row),
        (5, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        color=MUTED,
        annotation_clip=False,
    )


def _describe(figure: Figure, run: Confusions, base: Confusions | None) -> None:
    label = short_label(run.label, _LABEL_LETTERS)
    if base is None:
        title(figure, f"{label}: most confused pairs of classes")
        return
    title(
        figure,
        "pairs of classes whose confusion changed most (blue: fewer, orange: more)",
        f"open circles: {short_label(base.label, _LABEL_LETTERS)}",
        f"filled circles: {label}",
    )
