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

    The rate rises linearly over ``warmup_epochs``, from ``warmup_start_factor`` of the full rate at
    the first step to the full rate after the last one; if that factor is 0, the first step is one
    step into the warmup. The schedules start at the end of the warmup: ``step`` decays by gamma
    every ``step_epochs`` epochs, ``cosine`` falls to ``cosine_end_factor`` of the full rate at the
    end of the last epoch.
    """
    full = config.learning_rate * (shards if config.scale_by_workers else 1)
    done_epochs = epoch + step / steps
    if done_epochs < config.warmup_epochs:
        return full * _warmup_factor(config, done_epochs, steps)
    since_warmup = done_epochs - config.warmup_epochs
    if config.schedule == "step":
        return full * config.gamma ** math.floor(since_warmup / config.step_epochs)
    if config.schedule == "cosine":
        length = max(config.epochs - config.warmup_epochs, 1 / steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, since_warmup / length)))
        return full * (config.cosine_end_factor + (1 - config.cosine_end_factor) * cosine)
    return full


def _warmup_factor(config: OptimizerConfig, done_epochs: float, steps: int) -> float:
    start = config.warmup_start_factor
    if start == 0:  # a rate of 0 would waste the first step
        return min(1.0, (done_epochs + 1 / steps) / config.warmup_epochs)
    return start + (1 - start) * done_epochs / config.warmup_epochs
