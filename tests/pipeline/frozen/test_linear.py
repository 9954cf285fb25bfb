"""The grid of linear classifiers against each of them trained alone with torch.optim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from distinit.pipeline.frozen import linear
from distinit.pipeline.frozen.linear import LinearProbes, Standardiser, train_probes
from distinit.schemas.errors import ComputeError
from distinit.schemas.probe import LinearConfig, ProbeConfig

CLASSES = 3


def made(count: int, dim: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, CLASSES, count)
    centre_CD = np.random.default_rng(3).standard_normal((CLASSES, dim))
    feature_ND = centre_CD[label_N] + 0.7 * rng.standard_normal((count, dim))
    return torch.from_numpy(feature_ND.astype(np.float32)), torch.from_numpy(label_N)


@pytest.mark.parametrize("count", [9, 43])  # one batch, and 5 batches of 8 per epoch
def test_each_classifier_is_trained_as_alone(count: int) -> None:
    config = LinearConfig(
        learning_rates=(0.03, 0.3), weight_decays=(0.0, 0.1), steps=23, batch_size=8
    )
    feature_ND, label_N = made(count)
    together = train_probes(feature_ND, label_N, CLASSES, config.grid, config, seed=(5, 1))
    assert together.weight_GDC.shape == (4, 4, CLASSES)
    assert together.bias_GC.shape == (4, CLASSES)
    for number, (rate, decay) in enumerate(config.grid):
        alone = nn.Linear(4, CLASSES)
        nn.init.zeros_(alone.weight)
        nn.init.zeros_(alone.bias)
        optimizer = torch.optim.SGD(
            [
                {"params": [alone.weight], "weight_decay": decay},
                {"params": [alone.bias], "weight_decay": 0.0},
            ],
            lr=rate,
            momentum=config.momentum,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
        size = min(8, count)
        for step in range(config.steps):
            epoch, position = divmod(step, count // size)
            order_N = np.random.default_rng([5, 1, epoch]).permutation(count)
            index_B = torch.from_numpy(order_N[position * size :][:size])
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(alone(feature_ND[index_B]), label_N[index_B])
            loss.backward()
            optimizer.step()
            schedule.step()
        assert float(alone.weight.detach().abs().max()) > 0.05
        torch.testing.assert_close(together.weight_GDC[number], alone.weight.T.detach())
        torch.testing.assert_close(together.bias_GC[number], alone.bias.detach())


def test_predictions_and_losses_of_the_grid() -> None:
    feature_ND, label_N = made(20)
    probes = LinearProbes(torch.randn(2, 4, CLASSES), torch.randn(2, CLASSES))
    for number in range(2):
        logits_NC = feature_ND @ probes.weight_GDC[number] + probes.bias_GC[number]
        assert torch.equal(probes.predict(feature_ND)[number], logits_NC.argmax(dim=1))
        torch.testing.assert_close(
            probes.losses(feature_ND, label_N)[number],
            nn.functional.cross_entropy(logits_NC, label_N),
        )


def test_the_seed_decides_the_order_and_nothing_else_does() -> None:
    config = LinearConfig(steps=10, batch_size=8)
    feature_ND, label_N = made(43)
    state = torch.random.get_rng_state()
    one = train_probes(feature_ND, label_N, CLASSES, config.grid, config, seed=(0,))
    torch.rand(7)
    again = train_probes(feature_ND, label_N, CLASSES, config.grid, config, seed=(0,))
    other = train_probes(feature_ND, label_N, CLASSES, config.grid, config, seed=(1,))
    assert torch.equal(one.weight_GDC, again.weight_GDC)
    assert not torch.equal(one.weight_GDC, other.weight_GDC)
    torch.random.set_rng_state(state)


def test_all_steps_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_REPORT_EVERY", 4)
    reported: list[int] = []
    config = LinearConfig(steps=10)
    train_probes(*made(9), CLASSES, [(0.1, 0.0)], config, seed=(0,), advance=reported.append)
    assert reported == [4, 4, 2]


def test_standardised_features_equal_scikit_learn() -> None:
    feature_ND, _ = made(43)
    scale = Standardiser.of(feature_ND)
    other_ND, _ = made(7, seed=1)
    expected_ND = StandardScaler().fit(feature_ND.double().numpy()).transform(other_ND.double())
    torch.testing.assert_close(scale(other_ND), torch.from_numpy(expected_ND).float())


def test_a_feature_that_is_constant_in_training_becomes_zero() -> None:
    feature_ND = torch.tensor([[1.0, 0.1, 0.0], [3.0, 0.1, 0.0], [5.0, 0.1, 0.0]])
    scaled_ND = Standardiser.of(feature_ND)(torch.tensor([[3.0, 9.0, 9.0], [5.0, 0.1, 0.0]]))
    expected_ND = torch.tensor([[0.0, 0.0, 0.0], [1.5**0.5, 0.0, 0.0]])
    torch.testing.assert_close(scaled_ND, expected_ND)


def test_a_classifier_that_diverges_is_an_error() -> None:
    """All its weights become NaN, so that it would predict class 0 for every video."""
    config = LinearConfig(learning_rates=(0.03, 1e20), weight_decays=(0.1,), steps=9)
    with pytest.raises(ComputeError, match="diverged"):
        train_probes(*made(9), CLASSES, config.grid, config, seed=(0,))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_settings_that_are_not_finite_are_refused(value: float) -> None:
    settings = {"linear": {"learning_rates": (value,)}, "temperatures": (0.1,)}
    for change in (
        {},
        {"linear": {"weight_decays": (value,)}},
        {"linear": {}, "temperatures": (value,)},
    ):
        with pytest.raises(ValidationError, match=r"must (be above 0|not be negative)"):
            ProbeConfig.model_validate({"dataset": {"root": "d"}, "out": "o", **settings, **change})
