"""The filter figure: what is drawn is what the weights say."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.drawn import cut_texts
from helpers.hostile import HOSTILE_NAMES
from matplotlib.figure import Figure

from distinit.pipeline.plotting.rendering import figure_pdf, figure_png
from distinit.pipeline.reports.figures.filters import (
    FilterPanel,
    draw_filters,
    share_over_time,
    strongest_filters,
)


def kernel(outputs: int = 2, channels: int = 3, steps: int = 3, side: int = 2) -> np.ndarray:
    shape = (outputs, channels, steps, side, side)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def image(figure: Figure, number: int = 0) -> np.ndarray:
    return np.asarray(figure.axes[number].images[0].get_array())


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_each_row_is_a_filter_and_each_column_a_time_step() -> None:
    weights = kernel(outputs=12, side=2)
    figure = draw_filters([FilterPanel("a", weights)] * 5)
    pixels = image(figure)
    # A panel of a fifth of the page holds two blocks of six filters, three steps each.
    assert pixels.shape == (6 * 3 - 1, 2 * (3 * 3 - 1) + 4, 3)
    for block, row, step in np.ndindex(2, 6, 3):
        patch = weights[6 * block + row, :, step]
        left = block * 12 + 3 * step
        expected = 0.5 + 0.5 * patch / np.abs(weights[6 * block + row]).max()
        found = pixels[3 * row : 3 * row + 2, left : left + 2]
        np.testing.assert_allclose(found, np.moveaxis(expected, 0, -1), atol=1e-6)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["1", "2", "3"] * 2
    assert figure.axes[0].get_xlabel() == "time step"


def test_flow_is_shown_as_two_channels_of_a_diverging_map() -> None:
    weights = np.zeros((1, 2, 2, 1, 1), np.float32)
    weights[0, 0, 1], weights[0, 1, 0] = 1, -1
    figure = draw_filters([FilterPanel("flow", weights)])
    x1, x2, y1, y2 = image(figure)[0, ::2]
    assert np.ptp(x1) < 0.02  # white: 0
    np.testing.assert_array_equal(x1, y2)
    assert x2[2] > x2[1]  # purple: positive
    assert y1[0] > y1[2]  # orange: negative
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["x1", "x2", "y1", "y2"]


def test_spatial_filters_of_a_factorised_stem_are_shown_below() -> None:
    spatial = kernel(outputs=3, steps=1)[:, :, 0]
    figure = draw_filters([FilterPanel("3d", kernel()), FilterPanel("2+1d", kernel(), spatial)])
    assert len(figure.axes) == 3
    below = figure.axes[2]
    assert below.get_title(loc="left") == "3 spatial filters"
    assert below.get_position().y1 < figure.axes[1].get_position().y0
    expected = 0.5 + 0.5 * spatial[1] / np.abs(spatial[1]).max()
    np.testing.assert_allclose(image(figure, 2)[:, 3:5], np.moveaxis(expected, 0, -1), atol=1e-6)


def test_the_share_over_time_is_0_for_inflated_and_1_for_filters_without_a_mean() -> None:
    inflated = np.repeat(kernel(steps=1), 3, axis=2)
    assert share_over_time(inflated) == pytest.approx(0, abs=1e-12)
    alternating = np.concatenate([kernel(steps=1), -kernel(steps=1)], axis=2)
    assert share_over_time(alternating) == pytest.approx(1)
    assert share_over_time(np.zeros((1, 3, 2, 2, 2), np.float32)) == 0
    found = texts(draw_filters([FilterPanel("i", inflated), FilterPanel("a", alternating)]))
    assert found[1] == "2 filters 3x2x2\n0 % varies over time"
    assert found[3] == "2 filters 2x2x2\n100 % varies over time"


def test_networks_of_one_shape_show_the_same_filters() -> None:
    first, second = kernel(4), kernel(4)
    first[0] *= 10
    second[2] *= 10
    assert [order.tolist() for order in strongest_filters([first, second], 2)] == [[0, 2]] * 2
    alone = strongest_filters([first, kernel(4, side=3)], 1)
    assert alone[0].tolist() == [0]
    assert len(alone[1]) == 1
    figure = draw_filters([FilterPanel("a", first), FilterPanel("b", second)], filters=2)
    assert texts(figure)[1].startswith("2 of 4 filters")


def test_weak_filters_are_not_amplified() -> None:
    weights = kernel(2)
    weights[1] *= 1e-4
    figure = draw_filters([FilterPanel("a", weights)])
    weak = image(figure)[:2, 12:14]
    assert np.abs(weak - 0.5).max() < 1e-3


def test_many_panels_are_spread_over_balanced_rows() -> None:
    figure = draw_filters([FilterPanel(str(i), kernel()) for i in range(7)])
    tops = [round(axes.get_position().y1, 6) for axes in figure.axes]
    assert [tops.count(top) for top in sorted(set(tops), reverse=True)] == [4, 3]


def test_long_labels_have_two_lines_in_narrow_panels() -> None:
    label = "DistInit, one random frame, finetuned"
    narrow = draw_filters([FilterPanel(label, kernel())] * 5)
    assert texts(narrow)[0] == "DistInit, one\nrandom frame, …"
    wide = draw_filters([FilterPanel(label, kernel())] * 2)
    assert texts(wide)[0] == label
    assert cut_texts(narrow) == cut_texts(wide) == []


def test_any_labels_can_be_drawn_twice_with_the_same_bytes() -> None:
    panels = [FilterPanel(name, kernel(), kernel(steps=1)[:, :, 0]) for name in HOSTILE_NAMES]
    first, second = draw_filters(panels), draw_filters(panels)
    assert cut_texts(first) == []
    assert figure_png(first) == figure_png(second)
    assert figure_pdf(first) == figure_pdf(second)
