"""The terms of a distillation loss: one for each head, summed with their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distinit.pipeline.distillation.combine import MEAN_HEAD
from distinit.pipeline.distillation.losses import (
    lowest_losses,
    mean_over_targets,
    soft_losses,
    vector_losses,
)
from distinit.pipeline.distillation.target_coverage import KEPT, WITH_TARGET
from distinit.pipeline.distillation.targets import TargetReader
from distinit.pipeline.training.metrics import LOWEST_LOSS
from distinit.schemas.distill import DistillConfig, TargetConfig
from distinit.schemas.losses import DISTRIBUTION_LOSSES, Loss

__all__ = ["LossTerm", "loss_terms", "summed_loss"]


@dataclass(frozen=True, slots=True)
class LossTerm:
    """One term of the loss: a head, how its target is made, and its weight in the sum."""

    head: str
    config: TargetConfig
    """With a loss other than auto."""
    weight: float
    cells: int = 1
    """Vectors of a target: those of a grid are compared one by one."""

    def losses(self, outputs_BF: Tensor, target_BF: Tensor) -> Tensor:
        """Loss of each clip [B]. F: cells x channels, or classes."""
        kind = self._kind
        if kind in DISTRIBUTION_LOSSES:
            return soft_losses(kind, outputs_BF, target_BF, self.config.temperature)
        return vector_losses(
            kind,
            outputs_BF.reshape(len(outputs_BF), self.cells, -1),
            target_BF.reshape(len(target_BF), self.cells, -1),
            mean_over_channels=self.config.normalize != "none",
            beta=self.config.smooth_l1_beta,
        )

    def lowest(self, target_BF: Tensor) -> Tensor:
        """The lowest value [B] that the loss can have."""
        return lowest_losses(self._kind, target_BF)

    @property
    def _kind(self) -> Loss:
        if self.config.loss == "auto":
            raise RuntimeError("loss auto has not been replaced by the loss of a teacher")
        return self.config.loss


def loss_terms(config: DistillConfig, readers: Sequence[TargetReader]) -> tuple[LossTerm, ...]:
    """One term per teacher; a single term if one head learns their mean."""
    if config.combine == "mean":
        return (LossTerm(MEAN_HEAD, readers[0].config, 1.0),)
    return tuple(
        LossTerm(
            reader.teacher.id, reader.config, reader.config.weight, reader.teacher.identity.cells
        )
        for reader in readers
    )


def summed_loss(
    terms: Sequence[LossTerm], outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum over the heads of their mean loss over the clips with a target.

    A clip that the filter drops counts as a loss of zero (paper section 3); a clip without a
    target does not count. Metrics: ``loss/<head>`` (not weighted), the shares of all clips
    that have a target (``with_target/<head>``) and a nonzero weight (``kept/<head>``), and
    ``lowest_loss``: what the sum would be if every output were equal to its target.
    """
    total = torch.zeros((), device=next(iter(outputs.values())).device)
    lowest = torch.zeros_like(total)
    metrics: dict[str, Tensor] = {}
    for term in terms:
        name = term.head
        weight_B, present_B = targets[f"weight/{name}"], targets[f"present/{name}"]
        loss_B = term.losses(outputs[name], targets[f"target/{name}"])
        mean = mean_over_targets(weight_B * loss_B, present_B)
        total = total + term.weight * mean
        lowest_B = term.lowest(targets[f"target/{name}"])
        lowest = lowest + term.weight * mean_over_targets(weight_B * lowest_B, present_B)
        metrics |= {
            f"loss/{name}": mean,
            f"{WITH_TARGET}{name}": present_B.mean(),
            f"{KEPT}{name}": weight_B.mean(),
        }
    return total, metrics | {LOWEST_LOSS: lowest}
