"""The threshold figure: points, intervals, the density behind them, and the axis at the top."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.drawn import cut_texts
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from distinit.pipeline.evaluation.intervals import wilson_interval
from distinit.pipeline.plotting.rendering import figure_pdf, figure_png
from distinit.pipeline.reports.figures.threshold import ThresholdPoint, draw_threshold
from distinit.schemas.audit import EntropyHistogram

HISTOGRAM = EntropyHistogram(
    edges_nats=tuple(np.linspace(0, 6.4, 65).tolist()),
    frames=(*np.rint(1e4 * np.exp(-((np.arange(63) - 30.0) ** 2) / 50)).astype(int).tolist(), 1),
)
KEPT = {0.25: 2.0, 0.5: 3.0, 0.75: 3.2, 0.9: 6.2}
POINTS = (
    ThresholdPoint(2.0, 30, 100),
    ThresholdPoint(None, 40, 100),
    ThresholdPoint(None, 50, 100),
    ThresholdPoint(9.0, 45, 100),
)


@pytest.fixture(scope="module")
def figure() -> Figure:
    return draw_threshold(HISTOGRAM, KEPT, POINTS)


def bars(axes: Axes) -> tuple[list[list[float]], np.ndarray]:
    """([x, y] of the points, [2, 2] ends of each vertical line)."""
    (container,) = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    points, _, (lines,) = container
    return np.round(np.column_stack(points.get_data()), 9).tolist(), np.array(lines.get_segments())


def test_points_are_accuracies_at_their_thresholds(figure: Figure) -> None:
    points, segments = bars(figure.axes[0])
    # Three runs at the highest entropy are drawn apart, by 1.2 % of the axis.
    assert points == [[2, 30], [6.3232, 40], [6.4, 50], [6.4768, 45]]
    for (x, _), segment, point in zip(points, segments, POINTS, strict=True):
        low, high = wilson_interval(point.correct, point.videos)
        np.testing.assert_allclose(segment, [[x, 100 * low], [x, 100 * high]])


def test_a_line_connects_the_means(figure: Figure) -> None:
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose(np.column_stack(line.get_data()), [[2, 30], [6.4, 45]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["no filter"]


def test_the_density_is_that_of_the_histogram(figure: Figure) -> None:
    behind = figure.axes[1]
    assert behind.get_zorder() < figure.axes[0].get_zorder()
    (area,) = behind.collections
    outline = area.get_paths()[0].vertices
    x, y = np.asarray(outline).T
    assert np.trapezoid(y[y > 0], x[y > 0]) == pytest.approx(1, abs=0.02)
    assert x[y.argmax()] == pytest.approx(3.05, abs=0.05)


def test_the_top_axis_marks_shares_that_do_not_overlap(figure: Figure) -> None:
    assert cut_texts(figure) == []
    (top,) = figure.axes[0].child_axes
    labels = [label.get_text() for label in top.get_xticklabels()]
    assert labels == ["100", "50", "25"]  # 75 is too close to 50, and 90 to 100
    assert top.get_xticks().tolist() == [6.4, 3.0, 2.0]
    assert top.get_xlabel() == "frames kept (%)"


def test_units_are_on_the_axes(figure: Figure) -> None:
    axes = figure.axes[0]
    assert axes.get_xlabel() == "threshold: highest entropy of a target that is kept (nats)"
    assert axes.get_ylabel() == "top-1 accuracy (%), 95 % interval"


def test_frames_in_one_bin_and_a_single_run_can_be_drawn_twice_with_the_same_bytes() -> None:
    one_bin = EntropyHistogram(edges_nats=(0.0, 1.0, 2.0), frames=(0, 7))
    first, second = (draw_threshold(one_bin, {}, POINTS[1:2]) for _ in range(2))
    assert figure_png(first) == figure_png(second)
    assert figure_pdf(first) == figure_pdf(second)
    (area,) = first.axes[1].collections
    x, y = np.asarray(area.get_paths()[0].vertices).T
    assert (y.max(), x[y > 0].min(), x[y > 0].max()) == (1, 1, 2)
