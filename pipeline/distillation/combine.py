"""Averages the targets of several teachers that share one label space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.distillation.targets import TargetReader
from distinit.schemas.base import sha256_of
from distinit.schemas.distill import TargetConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.run import HeadRecord
from distinit.schemas.teacher import TeacherIdentity

__all__ = ["MEAN_HEAD", "gives_logits", "label_space_digest", "mean_head", "mean_target"]

MEAN_HEAD = "mean"
"""Name of the head that learns the mean of the teachers' targets."""


def label_space_digest(identity: TeacherIdentity) -> str:
    """A digest that is equal for two teachers if output c is the same class for both."""
    return sha256_of([identity.label_space, identity.classes, identity.label_names])


def mean_head(readers: Sequence[TargetReader]) -> HeadRecord:
    """The head that learns the mean of ``readers``.

    Raises ConfigError unless all of them store logits over one label space.
    """
    identities = {reader.teacher.id: reader.teacher.identity for reader in readers}
    features = [name for name, identity in identities.items() if identity.target == "features"]
    spaces = {label_space_digest(identity) for identity in identities.values()}
    if len(spaces) > 1 or features:
        raise ConfigError(
            "the targets of these teachers cannot be averaged",
            expected="logits over one label space (the same class names in the same order)",
            found="; ".join(
                f"{name}: {identity.classes} {identity.target} over {identity.label_space}"
                for name, identity in identities.items()
            ),
            remedy="set combine: heads, which gives each teacher a separate head",
        )
    first = readers[0].teacher.identity
    return HeadRecord(
        name=MEAN_HEAD,
        outputs=first.classes,
        label_space=first.label_space,
        mean_of={reader.teacher.id: reader.teacher.fingerprint for reader in readers},
    )


def mean_target(
    configs: Sequence[TargetConfig],
    targets: Sequence[Tensor],
    weights: Sequence[NDArray[np.float32]],
) -> tuple[Tensor, Tensor]:
    """(target [B, C], weight [B]) of the head that learns the mean.

    ``targets`` holds one tensor [B, C] per teacher: logits for ``average: logits`` and for the
    losses on logits, else probabilities. ``weights`` holds one array [B] per teacher, 0 or 1: a
    teacher with weight 0 is left out of the mean, and a clip without any teacher has weight 0.
    """
    shares = [c.weight * torch.from_numpy(w) for c, w in zip(configs, weights, strict=True)]
    total_B = torch.stack(shares).sum(dim=0)
    weight_B = (total_B > 0).to(torch.float32)
    mean_BC = torch.zeros_like(targets[0])
    for share_B, target_BC in zip(shares, targets, strict=True):
        mean_BC += (share_B / total_B.clamp(min=torch.finfo(torch.float32).tiny))[
            :, None
        ] * target_BC
    if gives_logits(configs[0]) and configs[0].loss in {"cross_entropy", "kl"}:
        mean_BC = torch.softmax(mean_BC / configs[0].temperature, dim=1)
    return mean_BC * weight_B[:, None], weight_B


def gives_logits(config: TargetConfig) -> bool:
    """Whether logits are averaged, rather than probabilities."""
    return config.average == "logits"
