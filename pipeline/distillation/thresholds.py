"""The thresholds of the confidence filters: computed once per run, then read from its folder.

``keep_fraction`` is a share of the clips as they are drawn, so the threshold is the quantile of
the entropies of their targets (paper section 3, Fig. 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distinit.pipeline.cache.quantile import WeightedBlocks, weighted_quantile
from distinit.pipeline.distillation.drawn_clips import SAMPLED_CLIPS, DrawnClips
from distinit.pipeline.distillation.targets import TargetReader
from distinit.pipeline.records import read_record, write_record
from distinit.pipeline.training.run_dir import has_begun
from distinit.schemas.base import sha256_of
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError, RunMismatchError
from distinit.schemas.thresholds import ThresholdRecord, ThresholdsRecord

__all__ = [
    "find_thresholds",
    "most_confident_nats",
    "read_thresholds",
    "some_clip_passes_all",
    "write_thresholds",
]

_FILE = "thresholds.json"


def find_thresholds(
    config: DistillConfig, readers: Sequence[TargetReader], drawn: DrawnClips
) -> ThresholdsRecord:
    """Compute the thresholds of all teachers with a filter, and what they keep.

    Raises ConfigError if no clip has a target of such a teacher, CacheCorruptError for damaged
    targets.
    """
    return ThresholdsRecord(
        settings_digest=_settings_digest(config),
        teachers={
            reader.teacher.id: _find_threshold(reader, drawn)
            for reader in readers
            if reader.filters
        },
    )


def _find_threshold(reader: TargetReader, drawn: DrawnClips) -> ThresholdRecord:
    read_blocks = drawn.entropies(reader)
    threshold_nats = reader.config.filter.max_entropy_nats
    if threshold_nats is None:
        threshold_nats = weighted_quantile(read_blocks, reader.config.filter.keep_fraction or 1.0)
    total, kept, tied = _weights(read_blocks, threshold_nats)
    if total == 0:
        raise ConfigError(
            f"no clip has a target of teacher {reader.teacher.id}: nothing is learned from it",
            expected="clips that contain a frame with a target",
            remedy="extract with this teacher again, or remove it from targets",
        )
    return ThresholdRecord(
        threshold_nats=threshold_nats,
        kept=min(1.0, kept / total),
        tied=min(1.0, tied / total),
        sampled_clips=SAMPLED_CLIPS if reader.averages_frames else None,
    )


def _weights(read_blocks: WeightedBlocks, threshold_nats: float) -> tuple[float, float, float]:
    """Weight of (all, those at or below the threshold, those at the threshold); fp32 values."""
    threshold = np.float32(threshold_nats)
    total = kept = tied = 0.0
    for entropy_M, weight_M in read_blocks():
        total += float(weight_M[~np.isnan(entropy_M)].sum())
        kept += float(weight_M[entropy_M <= threshold].sum())
        tied += float(weight_M[entropy_M == threshold].sum())
    return total, kept, tied


def most_confident_nats(reader: TargetReader, drawn: DrawnClips) -> float:
    """The lowest entropy of a clip's target, nats; infinite if no clip has a target."""
    lowest = math.inf
    for entropy_M, weight_M in drawn.entropies(reader)():
        usable_M = ~np.isnan(entropy_M) & (weight_M > 0)
        lowest = min(lowest, float(entropy_M[usable_M].min(initial=math.inf)))
    return lowest


def some_clip_passes_all(readers: Sequence[TargetReader], drawn: DrawnClips) -> bool:
    """Whether any clip of a fixed sample of SAMPLED_CLIPS clips passes the filters of all teachers.

    The sample is read up to the first such clip.
    """
    for rows_NT, uniform_NT, flip_N in drawn.sample():
        confident = [reader.confident(rows_NT, uniform_NT, flip_N) for reader in readers]
        if np.all(confident, axis=0).any():
            return True
    return False


def read_thresholds(run_root: Path, config: DistillConfig) -> ThresholdsRecord | None:
    """The thresholds that an earlier process of the same run has recorded; None if there are none.

    Those of other settings, of a folder without ``run.json``, and of a run that has not begun are
    not read: opening the run refuses or replaces such a folder. Raises RunMismatchError if the
    record is unreadable.
    """
    path = run_root / _FILE
    is_run = (run_root / "run.json").is_file() and has_begun(run_root)
    if not is_run or not path.is_file():
        return None
    record = read_record(
        path,
        ThresholdsRecord,
        error=RunMismatchError,
        remedy=f"delete {path}, then rerun the same command: it computes the thresholds again",
    )
    return record if record.settings_digest == _settings_digest(config) else None


def write_thresholds(run_root: Path, thresholds: ThresholdsRecord) -> None:
    """Record the thresholds of a run. Raises StorageError."""
    write_record(thresholds, run_root / _FILE)


def _settings_digest(config: DistillConfig) -> str:
    settings = config.model_dump(mode="json")
    for target in settings["targets"]:
        if target["loss"] == "auto":  # the default of earlier versions, for teachers with a filter
            target["loss"] = "cross_entropy"
        # A path. The run is refused if the file has another digest.
        target.pop("vocabulary", None)
    return sha256_of({name: settings[name] for name in ("targets", "clip")})
