"""Learning rates compared with values computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

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


@pytest.mark.parametrize("warmup_epochs", [1, 10])
def test_the_step_schedule_starts_after_the_warmup_as_in_torchvision(warmup_epochs: int) -> None:
    """With a warmup of 10 epochs, torchvision's video recipe drops the rate at 20, 30 and 40."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    milestones = [warmup_epochs + 10 * n for n in (1, 2, 3)]
    reference = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    for epoch in range(45):
        if epoch >= warmup_epochs:
            expected = optimizer.param_groups[0]["lr"]
            for step in (0, 9):
                found = rate(epoch, step, warmup_epochs=warmup_epochs)
                if epoch < warmup_epochs + 40:
                    assert found == pytest.approx(expected), (epoch, step)
        optimizer.step()
        reference.step()


def pyslowfast_rate(epoch: float, start: float, end: float, warmup: float, epochs: int) -> float:
    """The cosine schedule after a warmup, written as in PySlowFast, for a full rate of .01."""

    def cosine(at: float) -> float:
        angle = math.pi * (at - warmup) / (epochs - warmup)
        return end + (0.01 - end) * (math.cos(angle) + 1) * 0.5

    if epoch >= warmup:
        return cosine(epoch)
    return epoch * (cosine(warmup) - start) / warmup + start


def test_warmup_start_and_cosine_end_equal_those_of_pyslowfast() -> None:
    config = {"schedule": "cosine", "epochs": 8, "warmup_epochs": 2.5}
    factors = {"warmup_start_factor": 0.01, "cosine_end_factor": 0.02}
    for epoch in range(8):
        for step in range(10):
            expected = pyslowfast_rate(epoch + step / 10, 1e-4, 2e-4, 2.5, 8)
            assert rate(epoch, step, **config, **factors) == pytest.approx(expected, rel=1e-12)
    assert rate(0, 0, **config, **factors) == pytest.approx(1e-4)
    assert rate(8, 0, **config, **factors) == pytest.approx(2e-4)


def test_the_warmup_from_a_factor_equals_that_of_torchvisions_video_recipe() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    reference = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.001, total_iters=20)
    for step in range(20):
        found = rate(step // 10, step % 10, warmup_epochs=2, warmup_start_factor=0.001)
        assert found == pytest.approx(optimizer.param_groups[0]["lr"]), step
        optimizer.step()
        reference.step()
    assert rate(2, warmup_epochs=2, warmup_start_factor=0.001) == pytest.approx(0.01)


def test_the_cosine_schedule_after_a_warmup_equals_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
    for epoch in range(2, 8):
        found = rate(epoch, schedule="cosine", epochs=8, warmup_epochs=2)
        assert found == pytest.approx(optimizer.param_groups[0]["lr"]), epoch
        optimizer.step()
        reference.step()
