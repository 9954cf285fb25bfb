"""In which precision the teachers of an extraction compute."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import read_manifest, read_teacher
from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.teachers.base import Precision, default_precision
from distinit.schemas.errors import CacheError, ConfigError
from distinit.schemas.extract import ExtractConfig

__all__ = ["resolve_precision"]


def resolve_precision(config: ExtractConfig) -> Precision:
    """The precision of ``config``; for ``auto``, that of the cache, else the one of the device.

    So an extraction that is resumed on another machine goes on as it began. Raises ConfigError for
    fp16 on a CPU.
    """
    if config.precision == "fp16" and config.device == "cpu":
        raise ConfigError(
            "fp16 arithmetic needs a GPU", expected="fp32 or bf16 on a CPU", found="fp16"
        )
    if config.precision != "auto":
        return config.precision
    stored = _stored_precisions(CacheLayout(Path(config.cache)))
    return stored.pop() if len(stored) == 1 else default_precision(_device(config))


def _stored_precisions(layout: CacheLayout) -> set[Precision]:
    """Those of the teachers of an existing cache; opening it reports what is wrong with it."""
    with suppress(CacheError):
        names = read_manifest(layout).teachers
        return {read_teacher(layout, name).precision for name in names}
    return set()


def _device(config: ExtractConfig) -> torch.device:
    """Where the teachers run; workers on Ray may have a GPU that the driver lacks."""
    if config.compute.workers and config.device == "auto":
        return torch.device("cuda" if config.compute.gpus_per_worker else "cpu")
    if config.compute.workers:
        return torch.device(config.device)
    return resolve_device(config.device)
