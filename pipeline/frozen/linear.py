"""Linear classifiers on frozen features; a grid of them is trained together in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distinit.schemas.errors import ComputeError
from distinit.schemas.probe import LinearConfig

__all__ = ["LinearProbes", "Standardiser", "train_probes"]

_REPORT_EVERY = 50  # steps


@dataclass(frozen=True, slots=True)
class Standardiser:
    """Shifts and scales each feature to mean 0 and standard deviation 1 on the training set."""

    mean_D: Tensor
    std_D: Tensor
    """Infinite for a feature that is constant on the training set: it becomes 0 everywhere."""

    @classmethod
    def of(cls, train_ND: Tensor) -> Standardiser:
        """Computed in float64 over the training videos."""
        std_D, mean_D = torch.std_mean(train_ND.double(), dim=0, correction=0)
        constant_D = std_D <= 1e-6 * mean_D.abs().clamp(min=1e-30)
        return cls(mean_D, std_D.masked_fill(constant_D, math.inf))

    def __call__(self, feature_ND: Tensor) -> Tensor:
        """float32 [N, D]."""
        return ((feature_ND.double() - self.mean_D) / self.std_D).float()


@dataclass(frozen=True, slots=True)
class LinearProbes:
    """G linear classifiers."""

    weight_GDC: Tensor
    bias_GC: Tensor

    def logits(self, feature_ND: Tensor) -> Iterator[Tensor]:
        """float32 [N, C] of one classifier after the other: all at once would take G times more."""
        for weight_DC, bias_C in zip(self.weight_GDC, self.bias_GC, strict=True):
            yield torch.addmm(bias_C, feature_ND, weight_DC)

    def predict(self, feature_ND: Tensor) -> Tensor:
        """Predicted classes, int64 [G, N]; ties go to the class with the lower index."""
        return torch.stack([logits_NC.argmax(dim=1) for logits_NC in self.logits(feature_ND)])

    def losses(self, feature_ND: Tensor, label_N: Tensor) -> Tensor:
        """Mean cross entropy of each classifier, nats [G]."""
        return torch.stack([cross_entropy(logits, label_N) for logits in self.logits(feature_ND)])


def train_probes(
    feature_ND: Tensor,
    label_N: Tensor,
    classes: int,
    grid: Sequence[tuple[float, float]],
    config: LinearConfig,
    *,
    seed: Sequence[int],
    advance: Callable[[int], None] = lambda steps: None,
) -> LinearProbes:
    """Train one classifier per (learning rate, weight decay) of ``grid``, on the same batches.

    Each is trained as alone: SGD with momentum, cosine schedule, cross entropy, from zero, and the
    biases are not decayed. The gradients of all G classifiers take two matrix products per step.
    ``seed`` decides the order of the videos. ``advance`` is called with numbers of steps done.

    Raises ComputeError if a classifier has diverged.
    """
    device, size = feature_ND.device, len(grid)
    rates, decays = zip(*grid, strict=True)
    rate_G1, decay_G1 = (
        torch.tensor(column, dtype=torch.float32, device=device)[:, None]
        for column in (rates, decays)
    )
    # The last column of the features is 1: its weights are the biases.
    one_N1 = feature_ND.new_ones(len(feature_ND), 1)
    input_NE = torch.cat([feature_ND, one_N1], dim=1)
    weight_EGC = input_NE.new_zeros(input_NE.shape[1], size, classes)
    momentum_EGC = torch.zeros_like(weight_EGC)
    for step, batch_B in enumerate(_batches(len(feature_ND), config, seed)):
        index_B = torch.from_numpy(batch_B).to(device)
        input_BE, label_B = input_NE[index_B], label_N[index_B]
        logits_BGC = (input_BE @ weight_EGC.flatten(1)).view(-1, size, classes)
        error_BGC = logits_BGC.softmax(dim=2)
        error_BGC[torch.arange(len(label_B), device=device), :, label_B] -= 1
        gradient_EGC = (input_BE.T @ error_BGC.flatten(1) / len(label_B)).view_as(weight_EGC)
        gradient_EGC[:-1] += decay_G1 * weight_EGC[:-1]
        momentum_EGC.mul_(config.momentum).add_(gradient_EGC)
        schedule = 0.5 * (1 + math.cos(math.pi * step / config.steps))
        weight_EGC -= schedule * rate_G1 * momentum_EGC
        if (step + 1) % _REPORT_EVERY == 0:
            advance(_REPORT_EVERY)
    advance(config.steps % _REPORT_EVERY)
    if not bool(torch.isfinite(weight_EGC).all()):
        # Its predictions would be class 0 for every video, with an accuracy like any other.
        raise ComputeError(
            "a linear classifier has diverged: its weights are not finite",
            expected="learning rates times weight decays below 1",
            found=f"learning rates {rates}, weight decays {decays}",
            remedy="lower linear.learning_rates or linear.weight_decays",
        )
    weight_GEC = weight_EGC.transpose(0, 1).contiguous()
    return LinearProbes(weight_GEC[:, :-1], weight_GEC[:, -1])


def _batches(count: int, config: LinearConfig, seed: Sequence[int]) -> Iterator[np.ndarray]:
    """Indices of each step's batch. Epochs are shuffled; what does not fill a batch is dropped."""
    size = min(config.batch_size, count)
    per_epoch = count // size
    for step in range(config.steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0:
            order_N = np.random.default_rng([*seed, epoch]).permutation(count)
        yield order_N[position * size : (position + 1) * size]
