"""Losses between the outputs of a student's head and soft targets, one value per clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["Loss", "clip_weights", "lowest_losses", "mean_over_targets", "soft_losses"]

Loss = Literal["cross_entropy", "kl", "mse", "cosine"]


def soft_losses(kind: Loss, outputs_BC: Tensor, target_BC: Tensor, temperature: float) -> Tensor:
    """Loss of each clip [B].

    cross_entropy, kl: ``target_BC`` are probabilities at ``temperature``; the outputs are divided
    by it too. mse: half the squared distance between the logits. Its gradient (output - target)
    has the form of that of cross entropy (q - p) but is larger, so the paper trains with a tenth
    of the learning rate. cosine: one minus the cosine similarity of the logits.
    """
    if kind == "mse":
        distance_B: Tensor = 0.5 * (outputs_BC - target_BC).square().sum(dim=1)
        return distance_B
    if kind == "cosine":
        distance_B = 1 - functional.cosine_similarity(outputs_BC, target_BC, dim=1)
        return distance_B
    log_q_BC = torch.log_softmax(outputs_BC / temperature, dim=1)
    loss_B: Tensor = -(target_BC * log_q_BC).sum(dim=1)
    if kind == "kl":
        loss_B = loss_B - torch.special.entr(target_BC).sum(dim=1)
    return loss_B


def lowest_losses(kind: Loss, target_BC: Tensor) -> Tensor:
    """The lowest value [B] that ``soft_losses`` can have for these targets.

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
) -> list[NDArray[np.float32]]:
    """For each teacher, the weight [B] of each clip: 0 or 1.

    ``confident`` and ``present`` hold one array [B] per teacher. With ``any`` and ``all`` every
    teacher gets the same decision. A clip without a target (not ``present``) has weight 0 always.
    """
    if combine == "per_teacher":
        kept = list(confident)
    else:
        merge = np.any if combine == "any" else np.all
        kept = [merge(np.stack(confident), axis=0)] * len(confident)
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
