"""Losses equal their closed forms, and filters give clips a weight of 0 or 1."""

from __future__ import annotations

import math
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch

from distinit.pipeline.distillation.losses import (
    clip_weights,
    lowest_losses,
    mean_over_targets,
    soft_losses,
)
from distinit.schemas.losses import Loss

TARGET = torch.tensor([[0.7, 0.3, 0.0]], dtype=torch.float64)
OUTPUT = torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.float64)


def log_q(temperature: float = 1.0) -> list[float]:
    z = [v / temperature for v in (1.0, 2.0, 0.5)]
    log_z = math.log(sum(math.exp(v) for v in z))
    return [v - log_z for v in z]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_cross_entropy_equals_its_formula(temperature: float) -> None:
    expected = -0.7 * log_q(temperature)[0] - 0.3 * log_q(temperature)[1]
    loss = soft_losses("cross_entropy", OUTPUT, TARGET, temperature)
    assert loss.tolist() == pytest.approx([expected], abs=1e-12)


def test_kl_is_cross_entropy_minus_entropy_and_zero_at_equality() -> None:
    entropy = -(0.7 * math.log(0.7) + 0.3 * math.log(0.3))
    expected = -0.7 * log_q()[0] - 0.3 * log_q()[1] - entropy
    assert soft_losses("kl", OUTPUT, TARGET, 1.0).tolist() == pytest.approx([expected], abs=1e-12)
    same = torch.softmax(OUTPUT, dim=1)
    assert soft_losses("kl", OUTPUT, same, 1.0).item() == pytest.approx(0, abs=1e-12)


def test_mse_is_half_the_squared_distance_and_its_gradient_the_difference() -> None:
    output = OUTPUT.clone().requires_grad_()
    target = torch.tensor([[0.0, 4.0, 0.5]], dtype=torch.float64)
    loss = soft_losses("mse", output, target, 1.0)
    assert loss.tolist() == pytest.approx([2.5])
    loss.sum().backward()
    assert output.grad is not None
    assert output.grad.tolist() == [[1.0, -2.0, 0.0]]


def test_the_cosine_loss_is_0_for_equal_and_2_for_opposite_directions() -> None:
    target = torch.tensor([[2.0, 4.0, 1.0]], dtype=torch.float64)
    assert soft_losses("cosine", OUTPUT, target, 1.0).item() == pytest.approx(0, abs=1e-12)
    assert soft_losses("cosine", OUTPUT, -target, 1.0).item() == pytest.approx(2)


A, B = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
ALL = np.ones(4, bool)


@pytest.mark.parametrize("kind", get_args(Loss))
def test_no_loss_is_below_the_lowest_which_equal_outputs_have(kind: Loss) -> None:
    lowest = lowest_losses(kind, TARGET)
    assert lowest.shape == (1,)
    equal = TARGET.clamp(min=1e-300).log() if kind in ("cross_entropy", "kl") else TARGET
    assert soft_losses(kind, equal, TARGET, 1.0).tolist() == pytest.approx(
        lowest.tolist(), abs=1e-12
    )
    assert soft_losses(kind, OUTPUT, TARGET, 1.0).item() > lowest.item()


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("per_teacher", [[1, 1, 0, 0], [1, 0, 1, 0]]),
        ("any", [[1, 1, 1, 0], [1, 1, 1, 0]]),
        ("all", [[1, 0, 0, 0], [1, 0, 0, 0]]),
    ],
)
def test_filters_are_combined_as_configured(combine: str, expected: list[list[int]]) -> None:
    weights = clip_weights([A, B], [ALL, ALL], cast(Any, combine))
    assert [w.tolist() for w in weights] == expected


def test_a_clip_without_a_target_has_weight_0() -> None:
    present = np.array([0, 1, 1, 1], bool)
    assert clip_weights([A, B], [ALL, present], "any")[1].tolist() == [0, 1, 1, 0]
    assert clip_weights([A, B], [ALL, present], "any")[0].tolist() == [1, 1, 1, 0]


def test_the_mean_is_over_clips_with_a_target() -> None:
    values = torch.tensor([0.1, 0.7, 0.0, 0.3], requires_grad=True)
    whole = mean_over_targets(values, torch.ones(4))
    assert whole.item() == values.mean().item(), "bit by bit"
    # The last clip has no target; the third has one, which the filter drops.
    present = torch.tensor([1.0, 1.0, 1.0, 0.0])
    weight = torch.tensor([1.0, 1.0, 0.0, 0.0])
    mean = mean_over_targets(weight * values, present)
    mean.backward()
    assert mean.item() == pytest.approx(0.8 / 3)
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([1 / 3, 1 / 3, 0, 0])
    assert mean_over_targets(torch.zeros(4), torch.zeros(4)).item() == 0
