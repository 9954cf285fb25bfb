"""The gain figure: bars, their order, and classes that are left out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from helpers.drawn import cut_texts
from helpers.hostile import HOSTILE_NAMES
from matplotlib.axes import Axes

from distinit.pipeline.plotting.canvas import GAIN, LOSS
from distinit.pipeline.plotting.rendering import figure_pdf, figure_png
from distinit.pipeline.reports.figures.gain import ClassGains, draw_all_gains, draw_gain


def gains_of(
    names: list[str], videos: list[int], base: list[int], correct: list[int]
) -> ClassGains:
    return ClassGains(
        names, np.array(videos), np.array(base), np.array(correct), "scratch", "distinit"
    )


def many(count: int) -> ClassGains:
    """Class i gains i points."""
    names = [f"c{i}" for i in range(count)]
    return gains_of(names, [100] * count, [0] * count, list(range(count)))


def bars(axes: Axes) -> list[tuple[float, float]]:
    """(centre, width) of every bar."""
    found = []
    for patch in axes.patches:
        (_, bottom), width, height = patch.get_xy(), patch.get_width(), patch.get_height()
        found.append((round(bottom + height / 2, 6), round(width, 6)))
    return found


def names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_bars_are_gains_in_points_sorted_and_coloured_by_sign() -> None:
    gains = gains_of(["a", "b", "unseen", "c"], [10, 4, 0, 5], [5, 2, 0, 1], [4, 4, 0, 1])
    figure = draw_gain(gains)
    (axes,) = figure.axes
    assert bars(axes) == [(0, 50), (1, 0), (2, -10)]
    assert names(axes) == ["b", "c", "a"]
    colours = [patch.get_facecolor() for patch in axes.patches]
    assert [matplotlib_hex(c) for c in colours] == [GAIN, GAIN, LOSS]
    assert figure.get_suptitle().splitlines() == [
        "distinit against scratch",
        "top-1 47.4 % against 42.1 %; 1 class better, 1 worse",
        "4 to 10 test videos per class",
    ]
    assert axes.get_xlabel() == "gain in top-1 accuracy (percentage points)"


def matplotlib_hex(rgba: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgba[:3])


def test_of_many_classes_the_highest_and_lowest_gains_are_shown() -> None:
    (axes,) = draw_gain(many(51)).axes
    assert names(axes) == [f"c{i}" for i in range(50, 35, -1)] + [
        f"c{i}" for i in range(14, -1, -1)
    ]
    positions = [centre for centre, _ in bars(axes)]
    assert positions == [*range(15), *range(16, 31)]
    assert [text.get_text().strip() for text in axes.texts] == ["… 21 more classes …"]


@pytest.mark.parametrize(("count", "columns"), [(51, [51]), (101, [51, 50])])
def test_the_full_version_has_every_class(count: int, columns: list[int]) -> None:
    figure = draw_all_gains(many(count))
    assert [len(axes.patches) for axes in figure.axes] == columns
    shown = [name for axes in figure.axes for name in names(axes)]
    assert shown == [f"c{i}" for i in range(count - 1, -1, -1)]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1


def test_labels_of_101_classes_do_not_overlap() -> None:
    for figure in (draw_gain(many(101)), draw_all_gains(many(101))):
        assert cut_texts(figure) == []
        for axes in figure.axes:
            boxes = sorted(
                (label.get_window_extent() for label in axes.get_yticklabels()),
                key=lambda box: float(box.y0),
            )
            assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))


def test_any_names_can_be_drawn_twice_with_the_same_bytes() -> None:
    one = np.ones(len(HOSTILE_NAMES), int)
    gains = ClassGains(HOSTILE_NAMES, one, 0 * one, one, HOSTILE_NAMES[2], "long " * 20)
    assert cut_texts(draw_gain(gains)) == cut_texts(draw_all_gains(gains)) == []
    assert figure_png(draw_gain(gains)) == figure_png(draw_gain(gains))
    assert figure_pdf(draw_all_gains(gains)) == figure_pdf(draw_all_gains(gains))


def test_two_equal_runs_can_be_drawn() -> None:
    gains = gains_of(["a", "b"], [3, 0], [1, 0], [1, 0])
    (axes,) = draw_gain(gains).axes
    assert bars(axes) == [(0, 0)]
    assert axes.get_xlim() == (-1, 1)
