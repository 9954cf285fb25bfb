"""The learning rate schedule."""

from __future__ import annotations

import math

from distinit.schemas.training import OptimizerConfig

__all__ = ["learning_rate"]


def learning_rate(
    config: OptimizerConfig, *, epoch: int, step: int, steps: int, shards: int
) -> float:
    """Learning rate of step ``step`` (of ``steps``) in ``epoch``, both from 0.

    The base rate is multiplied by ``shards`` if ``scale_by_workers``: the paper gives the rate per
    GPU, and its batch of one GPU is one shard here.

    ``step`` decays by gamma every ``step_epochs`` whole epochs; ``cosine`` falls to zero at the
    end of the last epoch; warmup rises linearly and reaches the full rate with its last step.
    """
    base = config.learning_rate * (shards if config.scale_by_workers else 1)
    done_epochs = epoch + step / steps
    if config.schedule == "step":
        base *= config.gamma ** (epoch // config.step_epochs)
    elif config.schedule == "cosine":
        base *= 0.5 * (1 + math.cos(math.pi * done_epochs / config.epochs))
    if config.warmup_epochs > 0:
        base *= min(1.0, (done_epochs + 1 / steps) / config.warmup_epochs)
    return base
