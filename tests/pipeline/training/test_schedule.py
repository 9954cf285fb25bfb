"""Learning rates compared with values computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from distinit.pipeline.training.schedule import learning_rate
from distinit.schemas.training import OptimizerConfig


def rate(epoch: int, step: int = 0, steps: int = 10, shards: int = 1, **config: Any) -> float:
    return learning_rate(
        OptimizerConfig.model_validate({"learning_rate": 0.01, **config}),
        epoch=epoch,
        step=step,
        steps=steps,
        shards=shards,
    )


def test_the_step_schedule_of_the_paper() -> None:
    assert [rate(e) for e in (0, 9, 10, 19, 20, 44)] == pytest.approx(
        [0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-6]
    )
    assert rate(9, step=9) == pytest.approx(0.01)
    assert rate(3, step_epochs=2, gamma=0.5) == pytest.approx(0.005)


def test_the_rate_is_multiplied_by_the_number_of_shards() -> None:
    assert rate(0, shards=4) == pytest.approx(0.04)
    assert rate(0, shards=4, scale_by_workers=False) == pytest.approx(0.01)


def test_the_cosine_and_constant_schedules_equal_their_formulas() -> None:
    assert rate(0, schedule="cosine", epochs=4) == pytest.approx(0.01)
    assert rate(2, schedule="cosine", epochs=4) == pytest.approx(0.005)
    expected = 0.005 * (1 + math.cos(math.pi * 3.9 / 4))
    assert rate(3, step=9, schedule="cosine", epochs=4) == pytest.approx(expected)
    assert rate(30, schedule="constant") == pytest.approx(0.01)


def test_warmup_reaches_the_full_rate_with_its_last_step() -> None:
    rates = [rate(0, step, warmup_epochs=0.5) for step in range(6)]
    assert rates == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01, 0.01])
    assert rate(12, warmup_epochs=0.5) == pytest.approx(1e-3)
