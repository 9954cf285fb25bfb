"""The plot is drawn for few and for many classes, with any class names."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from distinit.pipeline.reports.confusion import plot_confusion


@pytest.mark.parametrize("classes", [2, 20, 101])
def test_counts_are_visible_in_the_plot(classes: int) -> None:
    diagonal = np.eye(classes, dtype=int) * 3
    names = [f"$\\frac{{class}} {n}" for n in range(classes)]
    pictures = [
        np.asarray(Image.open(io.BytesIO(plot_confusion(matrix.tolist(), names))).convert("L"))
        for matrix in (diagonal, np.zeros_like(diagonal))
    ]
    assert pictures[0].shape == pictures[1].shape
    assert min(pictures[0].shape) >= 4 * 120
    assert (pictures[0] != pictures[1]).mean() > 0.001


def test_class_names_that_the_font_cannot_draw_cause_no_warning() -> None:
    assert plot_confusion([[1, 0], [0, 1]], ["跑步", "跳"]).startswith(b"\x89PNG")
