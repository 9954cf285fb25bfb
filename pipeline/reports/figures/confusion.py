"""The confusion matrix of a run, and a list of the classes that it confuses most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from distinit.pipeline.plotting.canvas import (
    BODY,
    INK,
    MUTED,
    SMALL,
    new_figure,
    plain_text,
    title,
)
from distinit.pipeline.plotting.rendering import figure_png, short_label
from distinit.pipeline.reports.figures.confused import Confusions, confused_pairs

__all__ = ["confusion_figure", "plot_confusion"]

_MAX_NAMED = 60  # classes, up to which the axes show their names
_MAX_COUNTED = 15  # classes, up to which the cells show their counts
_LISTED = 10  # pairs of classes in the list
_LETTERS, _TITLE_LETTERS = 22, 80
_LIST_INCHES = 2.9
_LINE_INCHES = 0.32  # of the list: a pair takes two lines of text


def plot_confusion(
    confusion: Sequence[Sequence[int]], names: Sequence[str], heading: Sequence[str] = ()
) -> bytes:
    """PNG bytes of ``confusion_figure``."""
    return figure_png(confusion_figure(confusion, names, heading))


def confusion_figure(
    confusion: Sequence[Sequence[int]], names: Sequence[str], heading: Sequence[str] = ()
) -> Figure:
    """Rows are true classes, columns predicted ones; the most confused pairs stand beside it.

    ``confusion`` holds the number of videos [true class][predicted class]. The shade of a cell is
    its share of the row. ``heading``: lines above the plot, such as the run and its accuracy.
    """
    count_CC = np.array(confusion, np.int64)
    side = _matrix_inches(len(names))
    figure = new_figure(side + 1.2 + _LIST_INCHES, max(side, 1.2 + _LISTED * _LINE_INCHES) + 0.6)
    ratios = (side + 1.2, _LIST_INCHES)
    axes, beside = figure.subplots(1, 2, width_ratios=ratios)
    image = _draw_matrix(axes, count_CC)
    _label_classes(axes, names)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, shrink=0.8)
    bar.set_label("share of the true class's videos (%)", fontsize=SMALL, color=INK)
    bar.ax.tick_params(labelsize=SMALL)
    _list_pairs(beside, count_CC, names)
    title(figure, *(short_label(line, _TITLE_LETTERS) for line in heading))
    return plain_text(figure)


def _matrix_inches(classes: int) -> float:
    if classes > _MAX_NAMED:
        return 6.0
    return min(10.0, max(3.4, 1.6 + 0.15 * classes))


def _draw_matrix(axes: Axes, count_CC: np.ndarray) -> AxesImage:
    share_CC = count_CC / np.maximum(1, count_CC.sum(axis=1, keepdims=True))
    image = axes.imshow(100 * share_CC, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if len(count_CC) <= _MAX_COUNTED:
        for (row, column), count in np.ndenumerate(count_CC):
            if count:
                colour = "white" if share_CC[row, column] > 0.5 else INK
                text = f"{count:,}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=SMALL)
    return image


def _label_classes(axes: Axes, names: Sequence[str]) -> None:
    """The names of few classes; of many, their numbers in the order of the dataset."""
    classes = len(names)
    axes.tick_params(labelsize=SMALL - 1, length=2, color=MUTED)
    if classes <= _MAX_NAMED:
        short = [short_label(name, _LETTERS) for name in names]
        axes.set_xticks(range(classes), short, rotation=90)
        axes.set_yticks(range(classes), short)
    else:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    number = "" if classes <= _MAX_NAMED else f" (number of the class, of {classes:,})"
    axes.set_xlabel(f"predicted class{number}", fontsize=BODY, color=INK)
    axes.set_ylabel(f"true class{number}", fontsize=BODY, color=INK)
    axes.spines[:].set(color=MUTED, linewidth=0.6)


def _list_pairs(axes: Axes, count_CC: np.ndarray, names: Sequence[str]) -> None:
    """The pairs of most videos, as text."""
    pairs = confused_pairs(Confusions("", count_CC), _LISTED)
    videos_C = count_CC.sum(axis=1)
    axes.axis("off")
    lines = ["most confused: true → predicted"]
    for pair in pairs:
        true, predicted = (short_label(names[c], _LETTERS) for c in (pair.true, pair.predicted))
        share = 100 * pair.videos / videos_C[pair.true]
        lines += [
            f"{true} → {predicted}",
            f"    {pair.videos:,} of {videos_C[pair.true]:,} videos ({share:.0f} %)",
        ]
    if not pairs:
        lines.append("none")
    for number, line in enumerate(lines):
        axes.annotate(
            line,
            (0, 1),
            (0, -number * 0.5 * 72 * _LINE_INCHES),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            fontsize=BODY if number == 0 else SMALL,
            color=MUTED if line.startswith(" ") else INK,
            annotation_clip=False,
        )
