"""Distillation as a training task: clips from the frame store, targets from the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.combine import MEAN_HEAD, mean_head, mean_target
from distinit.pipeline.distillation.drawn_clips import DrawnClips
from distinit.pipeline.distillation.loss_terms import loss_terms, summed_loss
from distinit.pipeline.distillation.losses import clip_weights
from distinit.pipeline.distillation.matching import MatchedVideos, match_videos
from distinit.pipeline.distillation.normalization import Normalization
from distinit.pipeline.distillation.readers import open_reader
from distinit.pipeline.distillation.target_coverage import (
    disjoint_filters,
    has_enough_clips,
    refuse_filters_without_clips,
    refuse_without_targets,
    target_shares,
)
from distinit.pipeline.distillation.target_frames import TargetFrames
from distinit.pipeline.distillation.targets import ClipTargets, TargetReader
from distinit.pipeline.distillation.thresholds import (
    find_thresholds,
    most_confident_nats,
    some_clip_passes_all,
)
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.matching.mapping import read_mapping
from distinit.pipeline.progress import Progress
from distinit.pipeline.students.heads import Student, new_student
from distinit.pipeline.students.registry import check_clip
from distinit.pipeline.training.clips import check_crop, check_pixels, read_clips
from distinit.pipeline.training.metrics import MetricLine
from distinit.pipeline.training.sampling import ClipChoices
from distinit.pipeline.training.task import ClipBatch
from distinit.pipeline.training.workload import clips_of_epoch, with_epoch_length
from distinit.pipeline.transport.remote import is_url
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.run import HeadRecord
from distinit.schemas.thresholds import ThresholdsRecord

__all__ = ["DistillTask", "open_distill_task"]


class DistillTask:
    """See TrainingTask. Heads are named by teacher id; losses of the teachers are summed.

    Pickled as its configuration, thresholds and normalizations: another process opens the same
    cache and frame store again, and filters and normalizes in the same way.
    """

    def __init__(
        self,
        config: DistillConfig,
        cache: TargetCache,
        store: FrameStore,
        videos: MatchedVideos,
        readers: Sequence[TargetReader],
        drawn: DrawnClips,
        thresholds: ThresholdsRecord,
    ) -> None:
        self.config = config
        self.cache = cache
        self.store = store
        self.videos = videos
        self.readers = tuple(readers)
        self.thresholds = thresholds
        self._drawn = drawn
        self._loss_terms = loss_terms(config, readers)
        clips = clips_of_epoch(config.optimizer, config.runtime, len(videos.cache_ids))
        self._sampler = drawn.sampler(clips, config.runtime.seed)

    def __reduce__(
        self,
    ) -> tuple[
        Callable[..., DistillTask],
        tuple[DistillConfig, ThresholdsRecord, dict[str, Normalization]],
    ]:
        # The working folder of a Ray worker is another one.
        inputs = {name: getattr(self.config, name) for name in ("cache", "frames", "match")}
        absolute = {
            name: str(Path(path).absolute())
            for name, path in inputs.items()
            if path is not None and not is_url(path)
        }
        targets = tuple(target.with_absolute_paths() for target in self.config.targets)
        config = self.config.model_copy(update={**absolute, "targets": targets})
        return open_distill_task, (config, self.thresholds, self.normalizations)

    def refuse_filters_without_clips(self) -> None:
        """Raise ConfigError if the filters keep none of the clips as they are drawn."""
        kept = {name: record.kept for name, record in self.thresholds.teachers.items()}
        refuse_filters_without_clips(
            self.readers,
            kept,
            lambda reader: most_confident_nats(reader, self._drawn),
            self.config.combine_filters,
        )
        voters = [reader for reader in self.readers if reader.votes]
        together = self.config.combine_filters == "all" and len(voters) > 1 and bool(kept)
        if together and not some_clip_passes_all(voters, self._drawn):
            raise disjoint_filters(kept)

    @property
    def heads(self) -> tuple[HeadRecord, ...]:
        """One head per teacher, or one that learns their mean (raises what ``mean_head`` raises).

        Raises ConfigError if only some teachers of a mean have targets of flipped frames.
        """
        if self.config.combine == "mean":
            heads = [mean_head(self.readers)]
        else:
            heads = [
                HeadRecord(
                    name=reader.teacher.id,
                    outputs=reader.teacher.identity.classes,
                    label_space=reader.teacher.identity.label_space,
                    teacher_fingerprint=reader.teacher.fingerprint,
                    **_feature_keys(reader),
                )
                for reader in self.readers
            ]
        if self.config.clip.flip == 0:
            return tuple(heads)
        mirrored = [reader.mirrored is not None for reader in self.readers]
        return tuple(
            head.model_copy(
                update={
                    "flipped_clips": _flipped_clips(mirrored if head.mean_of else [is_mirrored])
                }
            )
            for head, is_mirrored in zip(heads, mirrored, strict=False)
        )

    @property
    def teachers(self) -> dict[str, str]:
        """Id -> fingerprint of every teacher of the cache that is read, mirrored ones included."""
        records = [record for reader in self.readers for record in reader.stored]
        return {record.id: record.fingerprint for record in records}

    @property
    def normalizations(self) -> dict[str, Normalization]:
        """Head -> how the features of its teacher are normalized; others are left out."""
        found = {reader.teacher.id: reader.normalization for reader in self.readers}
        return {name: found_one for name, found_one in found.items() if found_one is not None}

    @property
    def vocabularies(self) -> dict[str, str]:
        """Head -> digest of its vocabulary; heads of stored targets are left out."""
        relabelled = {r.teacher.id: r.teacher.identity.relabelled for r in self.readers}
        return {name: of.vocabulary_sha256 for name, of in relabelled.items() if of is not None}

    def build(self) -> Student:
        """See TrainingTask."""
        heads = {head.name: head.outputs for head in self.heads}
        return new_student(self.config.student, heads, self.config.runtime.seed)

    @property
    def skips(self) -> bool:
        """See TrainingTask."""
        return self.config.skip_filtered

    def order(self, epoch: int) -> NDArray[np.int64]:
        """See TrainingTask."""
        return self._sampler.order(epoch)

    def keeps(self, epoch: int, samples_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See TrainingTask: those with a nonzero weight for any teacher."""
        choices = self._sampler.choices(epoch, samples_N)
        rows_NT = self._drawn.rows(choices)
        uniform_NT = self._sampler.target_uniforms(epoch, samples_N)
        confident = [r.confident(rows_NT, uniform_NT, choices.flip_N) for r in self.readers]
        present = [(reader.written(rows_NT) >= 0).any(axis=1) for reader in self.readers]
        weights = self._weights(confident, present)
        return np.any([weight_N > 0 for weight_N in weights], axis=0)

    def _weights(
        self, confident: Sequence[NDArray[np.bool_]], present: Sequence[NDArray[np.bool_]]
    ) -> list[NDArray[np.float32]]:
        votes = [reader.votes for reader in self.readers]
        return clip_weights(confident, present, self.config.combine_filters, votes)

    def load(self, epoch: int, samples_B: NDArray[np.int64]) -> ClipBatch:
        """See TrainingTask."""
        choices = self._sampler.choices(epoch, samples_B)
        return ClipBatch(
            pixels=read_clips(self.store, self.videos.store_ids, choices, self.config.clip.crop),
            flip_B=torch.from_numpy(choices.flip_N),
            targets=self._targets(epoch, samples_B, choices),
        )

    def look_up(self, epoch: int, samples_B: NDArray[np.int64]) -> dict[str, Tensor]:
        """Read only the targets of a batch; benchmarks use it to measure the cost of the cache."""
        return self._targets(epoch, samples_B, self._sampler.choices(epoch, samples_B))

    def _targets(
        self, epoch: int, samples_B: NDArray[np.int64], choices: ClipChoices
    ) -> dict[str, Tensor]:
        rows_BT = self._drawn.rows(choices)
        uniform_BT = self._sampler.target_uniforms(epoch, samples_B)
        read: list[ClipTargets] = [
            reader.read(rows_BT, uniform_BT, choices.flip_N) for reader in self.readers
        ]
        present = [targets.present_B for targets in read]
        confident = [targets.confident_B for targets in read]
        weights = self._weights(confident, present)
        if self.config.combine == "mean":
            teacher_targets = [targets.target_BC for targets in read]
            mean_BC, kept_B = mean_target(self.config.targets, teacher_targets, weights)
            any_B = np.any(present, axis=0)
            return _tensors(MEAN_HEAD, mean_BC, kept_B, any_B)
        tensors: dict[str, Tensor] = {}
        for reader, targets, weight_B in zip(self.readers, read, weights, strict=True):
            kept_B = torch.from_numpy(weight_B)
            name = reader.teacher.id
            tensors |= _tensors(name, targets.target_BC, kept_B, targets.present_B)
        return tensors

    def loss(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See TrainingTask and ``summed_loss``."""
        return summed_loss(self._loss_terms, outputs, targets)

    def check_progress(self, lines: Sequence[MetricLine]) -> None:
        """See TrainingTask. Raises ConfigError if every clip so far had weight 0 for some head."""
        if not has_enough_clips(lines):
            return
        heads = [head.name for head in self.heads]
        shares = target_shares(lines, heads)
        for reader, head in zip(self.readers, heads, strict=False):
            refuse_without_targets(reader, shares.get(head))


def _feature_keys(reader: TargetReader) -> dict[str, Any]:
    """What the record of a head says of features only."""
    kind, cells = reader.config.normalize, reader.teacher.identity.cells
    return {
        "normalize": kind if reader.normalization is not None else None,
        "cells": cells if cells > 1 else None,
    }


def _tensors(
    name: str, target_BC: Tensor, weight_B: Tensor, present_B: NDArray[np.bool_]
) -> dict[str, Tensor]:
    present = torch.from_numpy(present_B.astype(np.float32))
    return {f"target/{name}": target_BC, f"weight/{name}": weight_B, f"present/{name}": present}


def _flipped_clips(mirrored: Sequence[bool]) -> str:
    """``HeadRecord.flipped_clips``. ``mirrored``: which teachers have targets of flipped frames."""
    if all(mirrored):
        return "target of the flipped frame"
    if not any(mirrored):
        return "target of the unflipped frame"
    raise ConfigError(
        "only some teachers of the mean have targets of flipped frames",
        expected="targets.flipped_teacher for every target, or for none",
        remedy="extract the missing teachers with flip: true",
    )


def open_distill_task(
    config: DistillConfig,
    thresholds: ThresholdsRecord | None = None,
    normalizations: Mapping[str, Normalization] | None = None,
    progress: Progress | None = None,
) -> DistillTask:
    """Open cache and frame store, and check all that can be checked before training.

    The configuration of the task has numbers where that of the call has ``auto``. The cache may be
    incomplete, and may lack teachers that are not in use. ``thresholds``: those of
    the filters, as an earlier call for the same data found them; None: they are computed.
    ``normalizations``: by teacher id, those with which the run began, if it has begun.

    Raises ConfigError, CacheError, FrameStoreError, MatchError.
    """
    check_clip(config.student, config.clip)
    cache = TargetCache.open(
        config.cache,
        allow_incomplete=True,
        allow_absent=True,
        keep_gib=config.read_through_gib,
        progress=progress,
    )
    readers = [
        open_reader(cache, config, target, normalizations or {}, progress)
        for target in config.targets
    ]
    names = [reader.teacher.id for reader in readers]
    if len(set(names)) < len(names):
        raise ConfigError(
            "two targets name the same teacher",
            expected="one target per teacher, or per teacher and vocabulary",
            found=", ".join(names),
            remedy="remove one of them; a teacher has one head, or one for each vocabulary, which "
            "is named after its file",
        )
    store = FrameStore.open(Path(config.frames))
    check_pixels(store, config.student, config.clip)
    committed_U = np.any([reader.committed_U for reader in readers], axis=0)
    frames = TargetFrames(cache.index, cache.manifest.row_space.capacity, committed_U)
    mapping = None if config.match is None else read_mapping(Path(config.match))
    videos = match_videos(cache, store, frames, mapping)
    optimizer = with_epoch_length(config.optimizer, config.runtime, len(videos.cache_ids))
    asked = config
    config = config.model_copy(
        update={"optimizer": optimizer, "targets": tuple(reader.config for reader in readers)}
    )
    small_V = store.short_edges[videos.store_ids.number_V] < config.clip.crop
    too_small = [videos.store_ids[v] for v in np.flatnonzero(small_V).tolist()]
    check_crop(store, too_small, config.clip.crop)
    drawn = DrawnClips(cache.index, videos, frames, config.clip)
    filtered = {reader.teacher.id: reader for reader in readers if reader.filters}
    if thresholds is None or thresholds.teachers.keys() != filtered.keys():
        thresholds = find_thresholds(asked, readers, drawn)
    for name, reader in filtered.items():
        reader.set_threshold(thresholds.teachers[name].threshold_nats)
    task = DistillTask(config, cache, store, videos, readers, drawn, thresholds)
    _ = task.heads  # raises ConfigError if the targets cannot be averaged
    return task
