"""The embedding figure: t-SNE with a fixed seed, classes, and the share of agreeing neighbours."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from helpers.drawn import cut_texts
from helpers.hostile import HOSTILE_NAMES
from matplotlib.colors import to_hex

from distinit.pipeline.plotting.rendering import figure_pdf, figure_png
from distinit.pipeline.reports.figures.embedding import (
    EmbeddingPanel,
    draw_embedding,
    nearest_agreement,
    spread_classes,
    tsne,
)
from distinit.schemas.errors import ConfigError

LABELS = np.repeat(np.arange(3), 8)
PLACES = np.random.default_rng(0).normal(size=(24, 2))


def clusters() -> np.ndarray:
    """Three classes along three axes, of different lengths: cosine ignores the length."""
    generator = np.random.default_rng(0)
    centres = 10 * np.eye(5)[LABELS] * generator.uniform(0.5, 2, (24, 1))
    return (centres + generator.normal(size=(24, 5))).astype(np.float32)


def test_tsne_separates_clusters_and_repeats_itself() -> None:
    places = tsne(clusters(), seed=0)
    assert places.shape == (24, 2)
    assert nearest_agreement(clusters(), LABELS) == 1
    within = [np.ptp(places[label == LABELS], axis=0).max() for label in range(3)]
    centres = np.array([places[label == LABELS].mean(axis=0) for label in range(3)])
    apart = [np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert max(within) < min(apart)
    np.testing.assert_array_equal(places, tsne(clusters(), seed=0))


@pytest.mark.parametrize("features", [np.ones((9, 4)), np.eye(3), np.ones((0, 4))])
def test_features_that_cannot_be_embedded_are_refused(features: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="cannot be embedded"):
        tsne(features.astype(np.float32), seed=0)


def test_a_missing_scikit_learn_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError) as error:
        tsne(clusters(), seed=0)
    assert "pip install scikit-learn" in str(error.value)


def test_agreement_counts_nearest_neighbours_by_cosine() -> None:
    features = np.array([[1, 0], [9, 1], [0, 1], [1, 9], [1, 1.1]], np.float32)
    # The nearest ones, by angle: 0-1, 1-0, 2-3, 3-2, and 4-3.
    assert nearest_agreement(features, np.array([0, 0, 1, 0, 0])) == pytest.approx(3 / 5)


def test_marked_classes_are_spread_over_those_that_occur() -> None:
    assert spread_classes(np.array([7, 1, 1, 3, 9, 5]), 3) == [1, 5, 9]
    assert spread_classes(np.array([2, 0]), 12) == [0, 2]


def test_points_of_each_class_are_drawn_in_its_colour() -> None:
    panels = [EmbeddingPanel("a", PLACES, 0.5), EmbeddingPanel("b", -PLACES, 1.0)]
    figure = draw_embedding(panels, LABELS, ["x", "y", "z"], [2, 0])
    for axes, places in zip(figure.axes, (PLACES, -PLACES), strict=True):
        others, *marked = axes.lines
        assert to_hex(str(others.get_color())) == "#cdd3dc"
        for line, label in ((others, 1), *zip(marked, (2, 0), strict=True)):
            np.testing.assert_array_equal(np.column_stack(line.get_data()), places[label == LABELS])
    assert len({(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "z",
        "x",
        "other classes",
    ]
    assert figure.axes[0].get_title(loc="left") == "a\nnearest video of the same class: 50 %"


def test_twelve_classes_differ_in_colour_or_shape() -> None:
    labels = np.arange(24) % 12
    figure = draw_embedding(
        [EmbeddingPanel("a", PLACES, 0)], labels, [str(i) for i in range(12)], list(range(12))
    )
    styles = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines[1:]}
    assert len(styles) == 12
    assert len(figure.legends[0].get_texts()) == 12


def test_any_names_can_be_drawn_twice_with_the_same_bytes() -> None:
    labels = np.arange(24) % len(HOSTILE_NAMES)
    marked = list(range(len(HOSTILE_NAMES)))
    panels = [EmbeddingPanel(name, PLACES, 0.5) for name in HOSTILE_NAMES[:4]]
    first, second = (draw_embedding(panels, labels, HOSTILE_NAMES, marked) for _ in range(2))
    assert cut_texts(first) == []
    assert figure_png(first) == figure_png(second)
    assert figure_pdf(first) == figure_pdf(second)
