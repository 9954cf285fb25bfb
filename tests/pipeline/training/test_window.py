"""Metric lines: when one is due, what it averages, and that reading never changes a sum."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import toys

from distinit.pipeline.progress import NullProgress
from distinit.pipeline.training.loop import train
from distinit.pipeline.training.window import MetricWindow
from distinit.schemas.errors import ComputeError

LOSSES = [0.1, 0.7, 1e-9, 3.3, 0.2]


def add(window: MetricWindow, *losses: float) -> None:
    for loss in losses:
        window.add({"loss": torch.tensor(loss, dtype=torch.float64)})


def test_the_loss_of_an_epoch_has_the_same_bits_wherever_lines_are_written() -> None:
    expected = 0.0
    for loss in LOSSES:
        expected += loss
    for cut in range(1, 5):
        window = MetricWindow()
        add(window, *LOSSES[:cut])
        assert window.sums()["loss"] == pytest.approx(sum(LOSSES[:cut]))
        window.next_line()
        add(window, *LOSSES[cut:])
        assert (window.steps, window.epoch_steps) == (5 - cut, 5)
        window.sums()
        assert window.epoch_loss == expected
        window.next_epoch()
        assert (window.epoch_loss, window.epoch_steps) == (0.0, 0)


def test_reading_twice_does_not_add_twice() -> None:
    window = MetricWindow()
    add(window, 0.5)
    assert window.sums() == window.sums() == {"loss": 0.5}
    add(window, 0.25)
    assert window.sums() == {"loss": 0.75}


def test_a_loss_that_is_not_finite_ends_training() -> None:
    window = MetricWindow()
    add(window, 1.0, float("nan"))
    with pytest.raises(ComputeError, match="not a finite number"):
        window.sums()


def test_lines_are_written_by_time_and_at_the_end_of_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every step takes one second.
    monkeypatch.setattr(MetricWindow, "seconds", property(lambda window: float(window.steps)))
    run = toys.make_run(tmp_path / "run")
    settings = toys.make_settings({"epochs": 2}, {"log_seconds": 2.5})
    train(toys.ToyTask(count=32), settings, run, NullProgress())
    assert [line["step"] for line in run.read_metrics()] == [3, 6, 8, 11, 14, 16]
