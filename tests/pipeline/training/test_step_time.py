"""Where a step's time goes: percentages that add up, and one line that names the largest part."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from distinit.pipeline.training.loop import train
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.pipeline.training.step_time import PARTS, StepClock, bottleneck

CPU = torch.device("cpu")


def line(rate: float = 1.0, **percent: float) -> dict[str, float]:
    return {
        "clips_per_second": rate,
        **{f"{part}_percent": percent.get(part, 0.0) for part in PARTS},
    }


def test_parts_are_percentages_of_the_window_and_start_anew() -> None:
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


def test_measured_time_is_the_body_s() -> None:
    clock = StepClock(CPU)
    with clock.measure("forward"):
        time.sleep(0.02)
    assert 20 <= clock.take(0.1)["forward_percent"] < 100


def test_waiting_while_the_device_is_busy_is_no_data_wait() -> None:
    clock = StepClock(CPU)
    clock.add("data_wait", 8.0)
    clock.add("backward", 9.0)
    assert clock.take(10.0)["data_wait_percent"] == 10


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], ""),
        ([{"clips_per_second": 1.0}], ""),
        (
            [line(backward=61, forward=30, data_wait=2)],
            "bottleneck: backward 61 % of the step; data wait 2 % (the network is the limit: "
            "runtime.precision bf16, runtime.compile, more workers)",
        ),
        (
            [line(forward=90), line(data_wait=70, forward=20)],
            "bottleneck: data wait 70 % of the step (raise runtime.loader_workers (now 3))",
        ),
        (
            [line(), line(backward=50), line(rate=0.5, backward=80)],
            "bottleneck: backward 70 % of the step; data wait 0 % (the network is the limit: "
            "runtime.precision bf16, runtime.compile, more workers)",
        ),
        (
            [line(forward=20)],
            "bottleneck: other 80 % of the step; data wait 0 % (raise runtime.checkpoint_seconds)",
        ),
    ],
)
def test_the_line_names_the_largest_part(lines: list[dict[str, float]], says: str) -> None:
    assert bottleneck(lines, 3) == says


def test_a_run_with_a_slow_loader_says_so(toys: ModuleType, run: RunDirectory) -> None:
    task = toys.ToyTask()
    load = task.load

    def slow(epoch: int, samples: np.ndarray) -> Any:
        time.sleep(0.1)
        return load(epoch, samples)

    task.load = slow
    recorder = toys.Recorder()
    settings = toys.make_settings({"epochs": 1}, {"loader_workers": 0})
    outcome = train(lambda: task, settings, run, recorder)
    assert outcome.bottleneck.startswith("bottleneck: data wait ")
    assert outcome.bottleneck.endswith("(raise runtime.loader_workers (now 0))")
    assert outcome.bottleneck not in recorder.messages, "the summary says it"
    for metrics in run.read_metrics():
        shares = [metrics[f"{part}_percent"] for part in PARTS]
        assert min(shares) > 0
        assert sum(shares) <= 100.001
        assert metrics["data_wait_percent"] > 50
