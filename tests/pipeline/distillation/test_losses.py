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
    vector_losses,
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


CELLS = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])  # one clip, two cells of two channels
OUTPUTS = torch.tensor([[[4.0, 3.0], [0.0, -1.0]]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cosine", (1 - 24 / 25 + 2) / 2),
        ("mse", (2 / 2 + 9 / 2) / 2),
        ("smooth_l1", (0.5 + 2.5 / 2) / 2),
        ("cosine+mse", (1 - 24 / 25 + 2) / 2 + (2 / 4 + 9 / 4) / 2),
        ("cosine+smooth_l1", (1 - 24 / 25 + 2) / 2 + (0.5 + 2.5 / 2) / 2),
    ],
)
def test_losses_of_vectors_are_means_over_the_cells(kind: Loss, expected: float) -> None:
    assert vector_losses(kind, OUTPUTS, CELLS).tolist() == pytest.approx([expected])


def test_mse_can_be_a_mean_over_channels_and_smooth_l1_has_a_beta() -> None:
    found = vector_losses("mse", OUTPUTS, CELLS, mean_over_channels=True)
    assert found.tolist() == pytest.approx([(2 / 4 + 9 / 4) / 2])
    # beta 4: both differences are in the quadratic part, difference^2 / (2 beta)
    found = vector_losses("smooth_l1", OUTPUTS, CELLS, beta=4)
    assert found.tolist() == pytest.approx([(2 / 8 / 2 + 9 / 8 / 2) / 2])


def test_teachers_without_a_vote_follow_the_others() -> None:
    kept = clip_weights([A, ALL], [ALL, ALL], "any", [True, False])
    assert [weight.tolist() for weight in kept] == [[1, 1, 0, 0], [1, 1, 0, 0]]
    alone = clip_weights([ALL], [A], "all", [False])
    assert alone[0].tolist() == [1, 1, 0, 0]
