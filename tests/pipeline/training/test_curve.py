"""The plot shows every head; the smoothing uses past values only."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from distinit.pipeline.training.curve import draw_curve, loss_names, moving_mean


def test_moving_mean_is_of_the_last_values() -> None:
    values = np.array([4.0, 2.0, 6.0, 0.0, 9.0])
    assert moving_mean(values, 1).tolist() == values.tolist()
    assert moving_mean(values, 2).tolist() == [4, 3, 4, 3, 4.5]
    assert moving_mean(values, 9).tolist() == [4, 3, 4, 3, 4.2]


def test_the_plot_has_one_line_per_head_if_there_are_several() -> None:
    one = [{"loss": 1.0, "loss/a": 1.0}]
    two = [{"loss": 3.0, "loss/b": 1.0, "loss/a": 2.0, "kept/a": 1.0}]
    assert loss_names(one) == ["loss"]
    assert loss_names(two) == ["loss", "loss/a", "loss/b"]


def test_different_losses_give_different_plots() -> None:
    def lines(slope: float) -> list[dict[str, float]]:
        return [{"epoch": i / 9, "loss": 5 - slope * i, "learning_rate": 0.1} for i in range(10)]

    plots = [Image.open(BytesIO(draw_curve(lines(slope)))).convert("L") for slope in (0, 0.3)]
    assert [plot.size for plot in plots] == [(840, 480)] * 2
    flat, falling = (np.asarray(plot) for plot in plots)
    assert (flat != falling).mean() > 0.005
