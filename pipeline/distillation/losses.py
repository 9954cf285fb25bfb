"""Losses between the outputs of a student's head and soft targets, one value per clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from distinit.schemas.losses import DISTRIBUTION_LOSSES, Loss

__all__ = [
    "clip_weights",
    "lowest_losses",
    "mean_over_targets",
    "soft_losses",
    "vector_losses",
]


def soft_losses(kind: Loss, outputs_BC: Tensor, target_BC: Tensor, temperature: float) -> Tensor:
    """Loss of each clip [B] between logits, or between features as they are stored.

    cross_entropy, kl: ``target_BC`` are probabilities at ``temperature``; the outputs are divided
    by it too. The other losses are those of ``vector_losses``, summed over the values. The gradient
    of mse (output - target) has the form of that of cross entropy (q - p) but is larger, so the
    paper trains with a tenth of the learning rate.
    """
    if kind not in DISTRIBUTION_LOSSES:
        return vector_losses(kind, outputs_BC[:, None], target_BC[:, None])
    log_q_BC = torch.log_softmax(outputs_BC / temperature, dim=1)
    loss_B: Tensor = -(target_BC * log_q_BC).sum(dim=1)
    if kind == "kl":
        loss_B = loss_B - torch.special.entr(target_BC).sum(dim=1)
    return loss_B


def vector_losses(
    kind: Loss,
    outputs_BKC: Tensor,
    target_BKC: Tensor,
    *,
    mean_over_channels: bool = False,
    beta: float = 1.0,
) -> Tensor:
    """Loss of each clip [B] between vectors of C channels, averaged over the K cells of a grid.

    cosine: one minus the cosine similarity. mse: half the squared distance, summed over the
    channels as in the paper, or with ``mean_over_channels`` their mean. smooth_l1: always the mean;
    with ``beta`` 1 it equals mse for differences below 1. A sum of losses uses means, so that its
    terms do not depend on the number of channels.
    """
    terms = kind.split("+")
    as_mean = mean_over_channels or len(terms) > 1
    loss_BK = torch.zeros_like(outputs_BKC[..., 0])
    for term in terms:
        loss_BK = loss_BK + _distances(term, outputs_BKC, target_BKC, as_mean, beta)
    return loss_BK.mean(dim=1)


def _distances(
    term: str, outputs_BKC: Tensor, target_BKC: Tensor, as_mean: bool, beta: float
) -> Tensor:
    """One loss of each vector: [B, K]."""
    if term == "cosine":
        return 1 - functional.cosine_similarity(outputs_BKC, target_BKC, dim=2)
    if term == "mse":
        squares_BKC = (outputs_BKC - target_BKC).square()
        return 0.5 * (squares_BKC.mean(dim=2) if as_mean else squares_BKC.sum(dim=2))
    loss_BKC = functional.smooth_l1_loss(outputs_BKC, target_BKC, reduction="none", beta=beta)
    return loss_BKC.mean(dim=2)


def lowest_losses(kind: Loss, target_BC: Tensor) -> Tensor:
    """The lowest value [B] that the loss can have for these targets.

    For cross_entropy it is their entropy in nats; for the other losses, which are distances, zero.
    """
    if kind == "cross_entropy":
        entropy_B: Tensor = torch.special.entr(target_BC).sum(dim=1)
        return entropy_B
    return torch.zeros_like(target_BC[:, 0])


def clip_weights(
    confident: Sequence[NDArray[np.bool_]],
    present: Sequence[NDArray[np.bool_]],
    combine: Literal["any", "all", "per_teacher"],
    votes: Sequence[bool] | None = None,
) -> list[NDArray[np.float32]]:
    """For each teacher, the weight [B] of each clip: 0 or 1.

    ``confident`` and ``present`` hold one array [B] per teacher. With ``any`` and ``all`` every
    teacher gets the same decision. A clip without a target (not ``present``) has weight 0 always.
    ``votes``: which teachers take part in that decision; those of features cannot be confident and
    follow the others. None: all.
    """
    voters = [c for n, c in enumerate(confident) if votes is None or votes[n]]
    if combine == "per_teacher" or not voters:
        kept = list(confident)
    else:
        merge = np.any if combine == "any" else np.all
        kept = [merge(np.stack(voters), axis=0)] * len(confident)
    return [
        (kept_B & present_B).astype(np.float32)
        for kept_B, present_B in zip(kept, present, strict=True)
    ]


def mean_over_targets(values_B: Tensor, present_B: Tensor) -> Tensor:
    """Mean of ``values_B`` over the clips with a target (``present_B``, 0 or 1); 0 if none has one.

    Values of clips without a target must be 0. If every clip has one, this is ``values_B.mean()``
    bit by bit.
    """
    return values_B.mean() * (len(present_B) / present_B.sum().clamp(min=1))
