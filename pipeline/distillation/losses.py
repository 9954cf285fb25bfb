"""Losses between a student's head and soft targets, one value a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["clip_weights", "mean_over_targets", "soft_losses"]

Loss = Literal["cross_entropy", "kl", "mse", "cosine"]


def soft_losses(kind: Loss, outputs_BC: Tensor, target_BC: Tensor, temperature: float) -> Tensor:
    """Loss of each clip [B].

    cross_entropy, kl: ``target_BC`` are probabilities at ``temperature``, which also divides the
    outputs. mse: half the squared distance of the logits, whose gradient (output - target) has the
    form of cross entropy's (q - p) but a larger scale; hence the paper's tenth of the learning
    rate. cosine: one minus the cosine of the angle between the logits.
    """
    if kind == "mse":
        distance_B: Tensor = 0.5 * (outputs_BC - target_BC).square().sum(dim=1)
        return distance_B
    if kind == "cosine":
        angle_B: Tensor = 1 - functional.cosine_similarity(outputs_BC, target_BC, dim=1)
        return angle_B
    log_q_BC = torch.log_softmax(outputs_BC / temperature, dim=1)
    loss_B: Tensor = -(target_BC * log_q_BC).sum(dim=1)
    if kind == "kl":
        loss_B = loss_B - torch.special.entr(target_BC).sum(dim=1)
    return loss_B


def clip_weights(
    confident: Sequence[NDArray[np.bool_]],
    present: Sequence[NDArray[np.bool_]],
    combine: Literal["any", "all", "per_teacher"],
) -> list[NDArray[np.float32]]:
    """Weight [B] of each clip for each teacher, 0 or 1.

    ``confident`` by teacher; any, all: one verdict for all teachers. A clip without a target
    (``present``, by teacher) has weight 0 in any case.
    """
    if combine == "per_teacher":
        verdicts = list(confident)
    else:
        merge = np.any if combine == "any" else np.all
        verdicts = [merge(np.stack(confident), axis=0)] * len(confident)
    return [
        (verdict_B & present_B).astype(np.float32)
        for verdict_B, present_B in zip(verdicts, present, strict=True)
    ]


def mean_over_targets(values_B: Tensor, present_B: Tensor) -> Tensor:
    """Mean of ``values_B`` over the clips with a target (``present_B``, 0 or 1); 0 without any.

    Values of the others must be 0. Exactly ``values_B.mean()`` where every clip has a target.
    """
    return values_B.mean() * (len(present_B) / present_B.sum().clamp(min=1))
