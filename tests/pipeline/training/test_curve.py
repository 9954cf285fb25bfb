"""The plot names the run, shows every head and the bound; the smoothing uses past values only."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from distinit.pipeline.training.curve import curve_figure, draw_curve, loss_names, moving_mean


def lines(slope: float = 0.3, count: int = 10) -> list[dict[str, float]]:
    return [
        {"step": 500 * i, "epoch": i / 4, "loss": 5 - slope * i, "learning_rate": 0.1}
        for i in range(1, count + 1)
    ]


def drawn(axes: Axes) -> dict[str, list[float]]:
    """The lines that have a label."""
    return {
        str(line.get_label()): np.asarray(line.get_ydata()).tolist()
        for line in axes.get_lines()
        if not str(line.get_label()).startswith("_")
    }


def heading(figure: Figure) -> list[str]:
    return figure.get_suptitle().splitlines()


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


def test_the_plot_names_the_run_and_its_last_values() -> None:
    evaluations = [{"step": 2500, "top1": 40.0}, {"step": 5000, "top1": 54.25, "per_clip": 50.0}]
    figure = curve_figure(lines(), evaluations, "finetune run runs/$a$")
    assert heading(figure) == [
        "finetune run runs/$a$",
        "step 5,000 (epoch 2.5)   loss 2.000   per clip 50.0 %   top-1 54.2 %",
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "training loss",
        "test accuracy (%)",
        "learning rate",
    ]
    assert drawn(figure.axes[1])["top-1"] == [40.0, 54.25]
    assert figure.axes[1].get_xlabel() == "optimiser step (one epoch: 2,000 steps)"


def test_a_single_evaluation_is_named_but_not_plotted() -> None:
    figure = curve_figure(lines(), [{"step": 5000, "top1": 54.0}], "x")
    assert "top-1 54.0 %" in heading(figure)[1]
    assert len(figure.axes) == 2


def test_steps_have_separators_and_the_axes_show_the_whole_run() -> None:
    figure = curve_figure(lines(), (), "x")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert axes.get_xlim() == (0, 5000)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert {"1,000", "5,000"} <= set(labels)
    assert drawn(figure.axes[1]) == {"learning rate (right)": [0.1] * 10}


def test_the_raw_loss_is_drawn_below_the_smoothed_one_of_a_long_run() -> None:
    many = lines(0.01, 80)
    axes = curve_figure(many).axes[0]
    assert list(drawn(axes)) == ["loss, mean of 2 lines"]
    assert [len(np.asarray(line.get_ydata())) for line in axes.get_lines()] == [80, 80]
    assert np.asarray(axes.get_lines()[0].get_ydata())[-1] == many[-1]["loss"]


def test_the_lowest_possible_loss_is_drawn_where_it_is_known() -> None:
    with_bound = [line | {"lowest_loss": 1.5} for line in lines()]
    assert drawn(curve_figure(with_bound).axes[0])["lowest possible loss"] == [1.5] * 10
    for of_a_distance in (lines(), [line | {"lowest_loss": 0.0} for line in lines()]):
        assert list(drawn(curve_figure(of_a_distance).axes[0])) == ["loss"]


def test_few_lines_are_marked_so_that_a_single_one_is_visible() -> None:
    for count, marker in ((1, "o"), (12, "o"), (13, "")):
        figure = curve_figure(lines(0.1, count))
        shown = [line.get_marker() for axes in figure.axes for line in axes.get_lines()]
        assert shown == [marker] * 2


def test_the_loss_has_its_unit_if_it_has_one() -> None:
    assert curve_figure(lines(), unit="nats").axes[0].get_ylabel() == "training loss, nats"
    assert curve_figure(lines()).axes[0].get_ylabel() == "training loss"


def test_a_run_without_metric_lines_has_a_plot() -> None:
    assert heading(curve_figure([], (), "distill run a"))[1] == "no metric lines yet"
    assert draw_curve([]).startswith(b"\x89PNG")


def test_different_losses_give_different_plots() -> None:
    plots = [Image.open(BytesIO(draw_curve(lines(slope)))).convert("L") for slope in (0, 0.3)]
    assert [plot.size for plot in plots] == [(1400, 720)] * 2
    flat, falling = (np.asarray(plot) for plot in plots)
    assert (flat != falling).mean() > 0.005
