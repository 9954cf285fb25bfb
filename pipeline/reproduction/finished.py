"""Which steps are finished: their results are on disk and belong to the same configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import read_manifest as read_cache_manifest
from distinit.pipeline.frames.commits import read_manifest as read_store_manifest
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.records import read_record
from distinit.pipeline.reproduction.moving_digits import has_moving_digits
from distinit.pipeline.reproduction.step import Step
from distinit.schemas.base import fields_outside_identity, flatten, is_outside_identity
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import DistInitError, RunMismatchError
from distinit.schemas.evaluation import result_name
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.schemas.frames import FlowConfig, FramesConfig
from distinit.schemas.reproduce import MakeDataConfig
from distinit.schemas.run import EvaluationResult, RunRecord

__all__ = ["is_finished", "result_file", "stored_result"]


def is_finished(step: Step) -> bool:
    """Whether ``step`` needs no more work, as far as its own files say."""
    config = step.config
    if isinstance(config, DistillConfig | FinetuneConfig):
        return _is_finished_run(Path(config.out), config)
    if isinstance(config, EvaluateConfig):
        return stored_result(step) is not None
    if isinstance(config, ExtractConfig):
        return _is_complete_cache(config)
    if isinstance(config, FramesConfig | FlowConfig):
        return _is_complete_store(Path(config.out))
    return isinstance(config, MakeDataConfig) and has_moving_digits(Path(config.out))


def result_file(step: Step) -> Path:
    """The file with the metrics of a finetune or evaluate step."""
    if isinstance(step.config, EvaluateConfig):
        scored = step.config.evaluation
        return Path(step.config.run) / result_name(scored.protocol, scored.average)
    return Path(step.finetune_config.out) / "result.json"


def stored_result(step: Step) -> EvaluationResult | None:
    """The metrics of a finished step, or None. Raises RunMismatchError if they are unreadable."""
    path = result_file(step)
    if not path.is_file():
        return None
    remedy = "delete it, and rerun the same command"
    return read_record(path, EvaluationResult, error=RunMismatchError, remedy=remedy)


def _is_finished_run(root: Path, config: DistillConfig | FinetuneConfig) -> bool:
    if not (root / "result.json").is_file():
        return False
    try:
        record = read_record(root / "run.json", RunRecord, error=RunMismatchError, remedy="")
    except RunMismatchError:
        return False
    ignored = fields_outside_identity(type(config))
    if config.optimizer.clips_per_epoch == "auto":  # the run has a number
        ignored |= {"optimizer.clips_per_epoch"}
    return _identity(record.config, ignored) == _identity(config.model_dump(mode="json"), ignored)


def _identity(config: Mapping[str, object], ignored: frozenset[str]) -> dict[str, object]:
    flat = flatten(config)
    return {k: value for k, value in flat.items() if not is_outside_identity(k, ignored)}


def _is_complete_cache(config: ExtractConfig) -> bool:
    try:
        manifest = read_cache_manifest(CacheLayout(Path(config.cache)))
    except DistInitError:
        return False
    wanted = {teacher.id for teacher in config.teachers}
    return manifest.complete and wanted <= set(manifest.teachers)


def _is_complete_store(folder: Path) -> bool:
    if not StoreLayout(folder).manifest.is_file():
        return False
    try:
        return read_store_manifest(folder).units is not None
    except DistInitError:
        return False
