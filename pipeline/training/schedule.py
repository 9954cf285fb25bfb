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

    The rate rises linearly over ``warmup_epochs`` and reaches the full rate with the last step of
    the warmup. The schedules start at the end of the warmup: ``step`` decays by gamma every
    ``step_epochs`` epochs, ``cosine`` falls to zero at the end of the last epoch.
    """
    full = config.learning_rate * (shards if config.scale_by_workers else 1)
    done_epochs = epoch + step / steps
    since_warmup = max(0.0, done_epochs - config.warmup_epochs)
    if config.schedule == "step":
        full *= config.gamma ** math.floor(since_warmup / config.step_epochs)
    elif config.schedule == "cosine":
        length = max(config.epochs - config.warmup_epochs, 1 / steps)
        full *= 0.5 * (1 + math.cos(math.pi * min(1.0, since_warmup / length)))
    if config.warmup_epochs > 0:
        full *= min(1.0, (done_epochs + 1 / steps) / config.warmup_epochs)
    return full
