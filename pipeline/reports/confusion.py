"""Plots the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from distinit.pipeline.plotting.rendering import figure_png
from distinit.schemas.wording import one_line

__all__ = ["plot_confusion"]

_MAX_NAMED = 60  # classes, up to which the axes show their names
_MAX_COUNTED = 15  # classes, up to which the cells show their counts


def plot_confusion(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> bytes:
    """Returns a PNG. Rows are true classes, columns predicted ones.

    ``confusion`` holds the number of videos [true class][predicted class]. The shade of a cell is
    its share of the row.
    """
    count_CC = np.array(confusion)
    share_CC = count_CC / np.maximum(1, count_CC.sum(axis=1, keepdims=True))
    classes = len(names)
    side = min(14.0, max(4.0, 1.5 + 0.22 * classes))
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(100 * share_CC, cmap="Blues", vmin=0, vmax=100)
    if classes <= _MAX_NAMED:
        # Class names are arbitrary text: a dollar sign must not start a formula.
        names = [one_line(name) for name in names]
        axes.set_xticks(range(classes), names, rotation=90, fontsize=7, parse_math=False)
        axes.set_yticks(range(classes), names, fontsize=7, parse_math=False)
    if classes <= _MAX_COUNTED:
        for (row, column), count in np.ndenumerate(count_CC):
            color = "white" if share_CC[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return figure_png(figure)
