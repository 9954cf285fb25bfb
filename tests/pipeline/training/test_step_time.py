"""Parts of a step: percentages that add up, and one line that names the largest part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import toys
from helpers.progress import RecordingProgress

from distinit.pipeline.training import loader, step_time, trainer, window
from distinit.pipeline.training.loop import train
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.pipeline.training.step_time import PARTS, StepClock, bottleneck

CPU = torch.device("cpu")


def line(rate: float = 1.0, **percent: float) -> dict[str, float]:
    return {
        "clips_per_second": rate,
        **{f"{part}_percent": percent.get(part, 0.0) for part in PARTS},
    }


def test_parts_are_percentages_of_one_window() -> None:
    clock = StepClock(CPU)
    clock.add("data_wait", 1.0)
    clock.add("backward", 4.0)
    clock.add("backward", 2.0)
    percent = clock.take(10.0)
    assert percent == {
        **dict.fromkeys(percent, 0.0),
        "data_wait_percent": 10,
        "backward_percent": 60,
    }
    assert set(clock.take(1.0).values()) == {0.0}


class Clock:
    """A fake ``time`` module: its time passes only when a test adds to ``now``."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replaces ``time`` in every module that measures a step."""
    clock = Clock()
    for module in (step_time, loader, trainer, window):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_measure_adds_the_time_of_its_body(fake_time: Clock) -> None:
    clock = StepClock(CPU)
    with clock.measure("forward"):
        fake_time.now += 2
    fake_time.now += 1
    assert clock.take(10.0)["forward_percent"] == 20


def test_waiting_while_the_device_is_busy_is_not_data_wait() -> None:
    clock = StepClock(CPU)
    clock.add("data_wait", 8.0)
    clock.add("backward", 9.0)
    assert clock.take(10.0)["data_wait_percent"] == 10


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ""),
        ([{"clips_per_second": 1.0}], ""),
        (
            [line(backward=61, forward=30, data_wait=2)],
            "bottleneck: backward 61 % of the step (limited by the network: try runtime.precision "
            "bf16, runtime.compile, more workers); data wait 2 %",
        ),
        (
            [line(forward=90), line(data_wait=70, forward=20)],
            "bottleneck: data wait 70 % of the step (raise runtime.loader_workers (now 3))",
        ),
        (
            [line(), line(backward=50), line(rate=0.5, backward=80)],
            "bottleneck: backward 70 % of the step (limited by the network: try runtime.precision "
            "bf16, runtime.compile, more workers); data wait 0 %",
        ),
        (
            [line(forward=20)],
            "bottleneck: other 80 % of the step (raise runtime.checkpoint_seconds); data wait 0 %",
        ),
        (
            [line(transfer=60, data_wait=15)],
            "bottleneck: transfer 60 % of the step (raise runtime.batch_size); data wait 15 %",
        ),
        (
            [line(transfer=60, data_wait=23)],
            "bottleneck: transfer 60 % of the step (raise runtime.batch_size); data wait 23 % "
            "(raise runtime.loader_workers (now 3))",
        ),
    ],
)
def test_the_line_names_the_largest_part(lines: list[dict[str, float]], expected: str) -> None:
    assert bottleneck(lines, 3) == expected


def test_a_slow_loader_is_reported_as_the_bottleneck(run: RunDirectory, fake_time: Clock) -> None:
    """A step takes ten seconds: seven for loading, two for the forward pass, one for the rest."""
    task = toys.ToyTask()
    load, loss = task.load, task.loss

    def slow_load(epoch: int, samples: np.ndarray) -> Any:
        fake_time.now += 7
        return load(epoch, samples)

    def slow_loss(*arguments: Any) -> Any:
        fake_time.now += 2
        return loss(*arguments)

    def slow_advance(amount: float = 1, **metrics: Any) -> None:
        fake_time.now += 1

    task.load, task.loss = slow_load, slow_loss
    recorder = RecordingProgress()
    recorder.advance = slow_advance
    settings = toys.make_settings({"epochs": 1}, {"loader_workers": 0})
    outcome = train(task, settings, run, recorder)
    assert outcome.bottleneck == (
        "bottleneck: data wait 70 % of the step (raise runtime.loader_workers (now 0))"
    )
    assert outcome.bottleneck not in recorder.messages, "only the summary contains it"
    first, *others = run.read_metrics()
    assert len(others) == 3
    for metrics in others:
        shares = {part: metrics[f"{part}_percent"] for part in PARTS}
        assert shares == {**dict.fromkeys(PARTS, 0), "data_wait": 70, "forward": 20}
        assert metrics["clips_per_second"] == 0.4
    assert (first["data_wait_percent"], first["clips_per_second"]) == (
        pytest.approx(700 / 9),
        pytest.approx(4 / 9),
    )
