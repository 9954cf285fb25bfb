"""The figure of confused pairs: which pairs, in which order, and what is drawn for them."""

from __future__ import annotations

import numpy as np
from helpers.drawn import cut_texts
from helpers.hostile import HOSTILE_NAMES

from distinit.pipeline.plotting.canvas import MINUS
from distinit.pipeline.plotting.rendering import figure_pdf, figure_png
from distinit.pipeline.reports.figures.confused import (
    ConfusedPair,
    Confusions,
    changed_pairs,
    confused_pairs,
    draw_confused,
)

NAMES = ("run", "walk", "jump")
VIDEOS = np.array([10, 10, 8])
BASE = Confusions("scratch", np.array([[3, 7, 0], [5, 5, 0], [0, 4, 4]]))
OTHER = Confusions("distinit", np.array([[8, 2, 0], [4, 4, 2], [0, 4, 4]]))


def test_pairs_are_sorted_by_their_number_of_videos() -> None:
    assert confused_pairs(BASE, 2) == [ConfusedPair(0, 1, 7), ConfusedPair(1, 0, 5)]
    assert confused_pairs(BASE, 9)[2:] == [ConfusedPair(2, 1, 4)]


def test_changed_pairs_go_from_the_largest_decrease_to_the_largest_increase() -> None:
    assert changed_pairs(BASE, OTHER, 2) == [
        ConfusedPair(0, 1, 2, 7),
        ConfusedPair(1, 2, 2, 0),
    ]
    assert changed_pairs(BASE, OTHER, 9)[1] == ConfusedPair(1, 0, 4, 5)


def test_bars_of_one_run() -> None:
    figure = draw_confused(NAMES, VIDEOS, BASE, None, 20)
    (axes,) = figure.axes
    assert [patch.get_width() for patch in axes.patches] == [7, 5, 4]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["run → walk", "walk → run", "jump → walk"]
    notes = [text.get_text() for text in axes.texts]
    assert notes == ["7 of 10 (70 %)", "5 of 10 (50 %)", "4 of 8 (50 %)"]
    assert figure.get_suptitle() == "scratch: most confused pairs of classes"


def test_lines_between_two_runs() -> None:
    figure = draw_confused(NAMES, VIDEOS, OTHER, BASE, 20)
    (axes,) = figure.axes
    drawn = [np.asarray(line.get_xdata()).ravel().tolist() for line in axes.lines]
    assert drawn == [[7, 2], [7], [2], [5, 4], [5], [4], [0, 2], [0], [2]]
    notes = [text.get_text() for text in axes.texts]
    assert notes == [f"{MINUS}5", f"{MINUS}1", "+2"]
    assert figure.get_suptitle().splitlines()[1:] == [
        "open circles: scratch",
        "filled circles: distinit",
    ]


def test_a_run_without_a_confusion_can_be_drawn() -> None:
    perfect = Confusions("p", np.diag(VIDEOS))
    (axes,) = draw_confused(NAMES, VIDEOS, perfect, None, 20).axes
    assert len(axes.patches) == 0
    assert figure_png(draw_confused(NAMES, VIDEOS, perfect, perfect, 20)).startswith(b"\x89PNG")


def test_any_names_can_be_drawn_twice_with_the_same_bytes() -> None:
    for start in (0, 3):
        names = HOSTILE_NAMES[start : start + 3]
        run = Confusions(names[0], BASE.counts_CC)
        figures = [draw_confused(names, VIDEOS, run, base, 5) for base in (None, OTHER) * 2]
        assert [cut_texts(figure) for figure in figures[:2]] == [[], []]
        assert figure_png(figures[0]) == figure_png(figures[2])
        assert figure_pdf(figures[1]) == figure_pdf(figures[3])
