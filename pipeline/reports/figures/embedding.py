"""t-SNE of last-layer features, one panel per network, coloured by class (Fig. 5 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from distinit.pipeline.plotting.canvas import (
    BODY,
    INK,
    MUTED,
    PAGE_INCHES,
    SMALL,
    new_figure,
    plain_text,
)
from distinit.pipeline.plotting.rendering import short_label
from distinit.schemas.errors import ConfigError

__all__ = [
    "MARKED_CLASSES",
    "EmbeddingPanel",
    "draw_embedding",
    "nearest_agreement",
    "require_tsne",
    "spread_classes",
    "tsne",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MARKED_CLASSES = 12
"""Classes that can be told apart; the videos of other classes are grey."""

# Okabe and Ito's colours without yellow, which is too light for small marks.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_SHAPES = ("o", "^", "s", "D", "v", "P")
_GREY = "#cdd3dc"
_PANELS_PER_ROW = 3
_TITLE_INCHES, _GUTTER_INCHES = 0.42, 0.1
_WIDEST_INCHES = 4.2
_LEGEND_LINE_INCHES = 0.165
_LEGEND_COLUMNS = 4
_BLOCK = 1024
_SHORTEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class EmbeddingPanel:
    """The test videos of one network in two dimensions."""

    label: str
    place_N2: NDArray[np.float64]
    agreement: float
    """Share of the videos whose nearest neighbour, among all features, has the same class."""


def require_tsne() -> None:
    """Raise ConfigError if scikit-learn is missing: it is not a dependency of training."""
    if find_spec("sklearn") is None:
        raise ConfigError(
            "the embedding needs scikit-learn, which is not installed",
            remedy="install it: pip install scikit-learn",
        )


def tsne(features_ND: Floats, seed: int) -> NDArray[np.float64]:
    """t-SNE (van der Maaten and Hinton 2008) in two dimensions: [N, 2].

    Features are scaled to length 1, as for nearest neighbours. The perplexity is 30, or a third of
    the videos if there are fewer than 91. The same features and seed give the same result.

    Raises ConfigError if scikit-learn is missing, for fewer than four videos, and if all features
    are equal.
    """
    require_tsne()
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # a dependency of scikit-learn

    unit_ND = _unit(features_ND)
    if len(unit_ND) < 4 or np.ptp(unit_ND, axis=0).max() < 1e-6:
        raise ConfigError(
            "these features cannot be embedded",
            expected="at least four test videos with different features",
            found=f"{len(unit_ND)} videos" if len(unit_ND) < 4 else "equal features",
            remedy="leave this run out",
        )
    model = TSNE(
        perplexity=min(30.0, (len(unit_ND) - 1) / 3),
        init="pca" if unit_ND.shape[1] > 1 else "random",
        random_state=seed,
    )
    # Its threads wait actively for each other: on a busy machine they are far slower than one.
    with threadpool_limits(1, user_api="openmp"):
        return np.asarray(model.fit_transform(unit_ND), np.float64)


def nearest_agreement(features_ND: Floats, label_N: Ints) -> float:
    """Share of the videos whose nearest neighbour by cosine has their label; ties by index."""
    unit_ND = _unit(features_ND)
    agreeing = 0
    for start in range(0, len(unit_ND), _BLOCK):
        cosine_BN = unit_ND[start : start + _BLOCK] @ unit_ND.T
        rows = np.arange(len(cosine_BN))
        cosine_BN[rows, start + rows] = -np.inf
        agreeing += int((label_N[cosine_BN.argmax(axis=1)] == label_N[start + rows]).sum())
    return agreeing / len(unit_ND)


def spread_classes(label_N: Ints, count: int) -> list[int]:
    """At most ``count`` of the classes that occur, evenly spaced in the order of their index."""
    found = np.unique(label_N)
    chosen = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [int(found[place]) for place in chosen]


def draw_embedding(
    panels: Sequence[EmbeddingPanel], label_N: Ints, names: Sequence[str], marked: Sequence[int]
) -> Figure:
    """One panel per network. The classes ``marked`` have a colour and a shape, others are grey.

    ``label_N``: class of each video, the same in all panels.
    """
    columns = math.ceil(len(panels) / math.ceil(len(panels) / _PANELS_PER_ROW))
    rows = math.ceil(len(panels) / columns)
    side = min(_WIDEST_INCHES, (PAGE_INCHES - _GUTTER_INCHES) / columns - _GUTTER_INCHES)
    width = columns * (side + _GUTTER_INCHES) + _GUTTER_INCHES
    legend = (math.ceil((len(marked) + 1) / _LEGEND_COLUMNS) + 0.5) * _LEGEND_LINE_INCHES
    height = rows * (side + _TITLE_INCHES) + legend + 2 * _GUTTER_INCHES
    # Placed here: a second pass of the constrained layout would move axes of equal sides.
    figure = new_figure(width, height, layout=False)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        left = _GUTTER_INCHES + column * (side + _GUTTER_INCHES)
        bottom = height - (row + 1) * (side + _TITLE_INCHES)
        place = (left / width, bottom / height, side / width, side / height)
        _draw_panel(figure.add_axes(place), panel, label_N, marked)
    _draw_legend(figure, names, marked, has_others=len(np.unique(label_N)) > len(marked))
    return plain_text(figure)


def _unit(features_ND: Floats) -> Floats:
    length_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
    return (features_ND / np.maximum(length_N1, _SHORTEST)).astype(np.float32)


def _draw_panel(axes: Axes, panel: EmbeddingPanel, label_N: Ints, marked: Sequence[int]) -> None:
    size = 3.2 if len(label_N) <= 1_000 else 2.2
    x_N, y_N = panel.place_N2.T
    other_N = ~np.isin(label_N, marked)
    axes.plot(x_N[other_N], y_N[other_N], "o", color=_GREY, markersize=0.7 * size, mew=0)
    for number, label in enumerate(marked):
        own_N = label_N == label
        colour, shape = _style(number)
        axes.plot(x_N[own_N], y_N[own_N], shape, color=colour, markersize=size, mew=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(MUTED)
    axes.spines[:].set_linewidth(0.5)
    axes.set_title(
        f"{short_label(panel.label, 30)}\nnearest video of the same class: "
        f"{100 * panel.agreement:.0f} %",
        loc="left",
        fontsize=BODY,
        color=INK,
    )


def _style(number: int) -> tuple[str, str]:
    """Colour and shape of the ``number``-th marked class; no two are alike."""
    colour, lap = number % len(_COLOURS), number // len(_COLOURS)
    return _COLOURS[colour], _SHAPES[(colour + lap) % len(_SHAPES)]


def _draw_legend(
    figure: Figure, names: Sequence[str], marked: Sequence[int], *, has_others: bool
) -> None:
    """Names are set afterwards: matplotlib would leave out those that begin with ``_``."""
    texts = [short_label(names[label], 22) for label in marked]
    handles = [
        Line2D([], [], linestyle="", marker=shape, color=colour, markersize=4.5, mew=0)
        for colour, shape in (_style(number) for number in range(len(marked)))
    ]
    if has_others:
        texts.append("other classes")
        handles.append(Line2D([], [], linestyle="", marker="o", color=_GREY, markersize=4, mew=0))
    legend = figure.legend(
        handles,
        [str(number) for number in range(len(handles))],
        loc="lower center",
        ncols=_LEGEND_COLUMNS,
        fontsize=SMALL,
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.2,
    )
    for shown, text in zip(legend.get_texts(), texts, strict=True):
        shown.set(text=text, color=INK)
