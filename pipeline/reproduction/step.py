"""A step of a reproduction: one call of a stage, with its configuration and what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

from distinit.pipeline.config import build_config, merge_setting
from distinit.schemas.base import Record
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.reproduce import Absent

__all__ = ["Need", "Step", "UnavailableError", "configure", "divided", "present"]

StepKind = Literal["data", "extract", "frames", "flow", "distill", "finetune", "evaluate"]


class UnavailableError(Exception):
    """A cell needs something that the scale does not have; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Need:
    """A file or folder below the data folder, or a Python module (``path`` is its name)."""

    path: str
    kind: Literal["corpus", "labels", "dataset", "splits", "weights", "module"]
    what: str


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a stage. A training run has the directory ``runs/NAME``."""

    name: str
    kind: StepKind
    config: Record
    after: tuple[str, ...] = ()
    """Names of steps that have to be done before."""
    needs: tuple[Need, ...] = ()

    @property
    def clips(self) -> int | None:
        """Training clips over all epochs; None if it depends on the number of videos."""
        if not isinstance(self.config, DistillConfig | FinetuneConfig):
            return 0
        optimizer = self.config.optimizer
        per_epoch = optimizer.clips_per_epoch
        return optimizer.epochs * per_epoch if isinstance(per_epoch, int) else None

    @property
    def finetune_config(self) -> FinetuneConfig:
        """The configuration of a finetune step. Raises TypeError for another step."""
        if not isinstance(self.config, FinetuneConfig):
            raise TypeError(f"{self.name} is not a finetune step")
        return self.config


def present[T](source: T | Absent | None, what: str) -> T:
    """``source``. Raises UnavailableError if the scale does not have it."""
    if isinstance(source, Absent):
        raise UnavailableError(source.absent)
    if source is None:
        raise UnavailableError(f"the scale has no {what}")
    return source


def configure[ConfigT: Record](
    model: type[ConfigT], settings: Mapping[str, Any], values: Mapping[str, Any]
) -> ConfigT:
    """``settings`` with the dotted ``values``. Raises ConfigError if they are invalid."""
    merged = deepcopy(dict(settings))
    for name, value in values.items():
        merge_setting(merged, name, value)
    return build_config(model, None, (), merged)


def divided[ConfigT: (DistillConfig, FinetuneConfig)](config: ConfigT, parts: int) -> ConfigT:
    """``config`` with the same global batch and learning rate, in smaller batches.

    Raises ConfigError unless ``parts`` divides the batch size.
    """
    runtime, optimizer = config.runtime, config.optimizer
    if runtime.batch_size % parts:
        raise ConfigError(
            f"a batch of {runtime.batch_size} clips cannot be divided into {parts} parts",
            remedy="change long_clips or the batch size of the scale",
        )
    update = {"batch_size": runtime.batch_size // parts, "shards": runtime.shards * parts}
    rate = optimizer.learning_rate / (parts if optimizer.scale_by_workers else 1)
    return config.model_copy(
        update={
            "runtime": runtime.model_copy(update=update),
            "optimizer": optimizer.model_copy(update={"learning_rate": rate}),
        }
    )
