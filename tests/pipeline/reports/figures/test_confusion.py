"""The plot is drawn for few and for many classes, with any class names, and lists the mistakes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from distinit.pipeline.reports.figures.confusion import confusion_figure, plot_confusion


@pytest.mark.parametrize("classes", [2, 20, 101])
def test_counts_are_visible_in_the_plot(classes: int) -> None:
    diagonal = np.eye(classes, dtype=int) * 3
    names = [f"$\\frac{{class}} {n}" for n in range(classes)]
    pictures = [
        np.asarray(Image.open(io.BytesIO(plot_confusion(matrix.tolist(), names))).convert("L"))
        for matrix in (diagonal, np.zeros_like(diagonal))
    ]
    assert pictures[0].shape == pictures[1].shape
    assert min(pictures[0].shape) >= 4 * 200
    assert (pictures[0] != pictures[1]).mean() > 0.001


def test_class_names_that_the_font_cannot_draw_cause_no_warning() -> None:
    assert plot_confusion([[1, 0], [0, 1]], ["跑步", "跳"]).startswith(b"\x89PNG")


def test_the_plot_lists_the_most_confused_pairs_and_explains_its_shades() -> None:
    figure = confusion_figure(
        [[3, 1, 0], [2, 2, 0], [0, 0, 9]], ["run", "walk", "sit"], ["finetune run a", "top-1 82.4"]
    )
    assert figure.get_suptitle() == "finetune run a\ntop-1 82.4"
    matrix, beside, bar = figure.axes
    assert [text.get_text() for text in beside.texts] == [
        "most confused: true → predicted",
        "walk → run",
        "    2 of 4 videos (50 %)",
        "run → walk",
        "    1 of 4 videos (25 %)",
    ]
    assert [text.get_text() for text in matrix.texts] == ["3", "1", "2", "2", "9"]
    assert bar.get_ylabel() == "share of the true class's videos (%)"


@pytest.mark.parametrize(("classes", "named"), [(60, True), (61, False)])
def test_only_few_classes_are_named_on_the_axes(classes: int, named: bool) -> None:
    matrix, beside, _ = confusion_figure(
        np.eye(classes, dtype=int).tolist(), [f"c{n}" for n in range(classes)]
    ).axes
    labels = [label.get_text() for label in matrix.get_xticklabels()]
    assert (labels == [f"c{n}" for n in range(classes)]) == named
    expected = "predicted class" + ("" if named else " (number of the class, of 61)")
    assert matrix.get_xlabel() == expected
    assert beside.texts[-1].get_text() == "none"
