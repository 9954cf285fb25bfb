"""The rows of `distinit probe`: random weights, inflation, the given inits, and the teachers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.datasets.labelled import LabelledVideos
from distinit.pipeline.evaluation.feature_files import read_features
from distinit.pipeline.finetuning.init import Init, resolve_init
from distinit.pipeline.frozen.teacher_features import DESCRIPTIONS, teacher_features
from distinit.pipeline.progress import Progress
from distinit.pipeline.students.registry import check_clip
from distinit.schemas.errors import CacheError, ConfigError, WeightsError
from distinit.schemas.probe import ProbeConfig, ProbeRow
from distinit.schemas.training import ClipConfig, StudentConfig
from distinit.stages.features import FeatureExport, clip_of

__all__ = ["ProbedStudent", "ProbedTeacher", "RowFeatures", "probed_students", "probed_teachers"]


@dataclass(frozen=True, slots=True)
class RowFeatures:
    """Features of one row for the N decodable videos of a dataset."""

    row: ProbeRow
    feature_ND: Tensor
    """float32; 0 for a video without features."""
    exists_N: Tensor
    """bool"""


@dataclass(frozen=True, slots=True)
class ProbedStudent:
    """A network whose features become a row."""

    name: str
    kind: Literal["random", "inflated", "init"]
    init: Init
    clip: ClipConfig

    def features(
        self, labelled: LabelledVideos, config: ProbeConfig, progress: Progress
    ) -> RowFeatures:
        """Features from the folder ``out/features``, or computed and stored there."""
        progress.message(f"features of {self.name}")
        export = FeatureExport.of(self.name, self.init, self.clip, labelled, config)
        folder = Path(config.out) / "features" / export.inputs.identity()[:16]
        record = export.write(folder, progress)
        table, _ = read_features(folder)
        network, protocol = self.init.student.name, config.evaluation.protocol
        row = ProbeRow(
            name=self.name,
            kind=self.kind,
            features=f"{network}, last layer, mean over {protocol}",
            feature_dim=record.feature_dim,
            sha256=record.inputs.weights_sha256,
        )
        return RowFeatures(row, table.features_ND, torch.ones(record.videos, dtype=torch.bool))


@dataclass(frozen=True, slots=True)
class ProbedTeacher:
    """A teacher whose stored outputs become a row."""

    cache: TargetCache
    teacher_id: str

    def features(
        self, labelled: LabelledVideos, config: ProbeConfig, progress: Progress
    ) -> RowFeatures:
        """The teacher's outputs, averaged per video.

        Raises CacheError as ``teacher_features``, and if no training video or no test video exists.
        """
        digests = [video.digest for video in labelled.decodable]
        progress.start(f"targets of {self.teacher_id}", len(digests), "videos")
        feature_NC, exists_N = teacher_features(self.cache, self.teacher_id, digests, progress)
        progress.finish()
        subsets = {v.subset for v, there in zip(labelled.decodable, exists_N, strict=True) if there}
        if not {"train", labelled.dataset.final_subset} <= subsets:
            raise CacheError(
                f"the cache {self.cache.layout.root} lacks most videos of the dataset",
                expected="training and test videos",
                found=f"only {' and '.join(sorted(subsets))} videos" if subsets else "no videos",
                remedy="extract all videos of the dataset into one cache",
            )
        identity = self.cache.teachers[self.teacher_id].identity
        row = ProbeRow(
            name=f"teacher {self.teacher_id}",
            kind="teacher",
            features=DESCRIPTIONS[identity.target],
            feature_dim=identity.classes,
            sha256=identity.fingerprint,
            absent_videos=int((~exists_N).sum()),
        )
        return RowFeatures(row, feature_NC, exists_N)


def probed_students(config: ProbeConfig) -> list[ProbedStudent | ProbeRow]:
    """Random weights, inflation and the given inits; a row without measures for what is missing.

    The network of the first two is ``config.student``, or else that of the first init. Their clip
    is that of the first init that names one. Raises ConfigError if no network is named or the inits
    read different pixels; CheckpointError and WeightsError as ``resolve_init``.
    """
    named = [name for name in config.inits if name not in ("scratch", "inflated")]
    inits = {name: resolve_init(name, config.student) for name in named}
    network = config.student or next((init.student for init in inits.values()), None)
    if network is None:
        raise ConfigError(
            "the probe does not know which network to measure",
            expected="a student, or an init that names one",
            remedy="add --init distinit:RUN, or --student NAME",
        )
    like = next((init.record for init in inits.values() if init.record is not None), None)

    def source(name: str, kind: Literal["random", "inflated", "init"], init: Init) -> ProbedStudent:
        clip = clip_of(init.record or like, init.student, config.clip)
        check_clip(init.student, clip)
        return ProbedStudent(name, kind, init, clip)

    sources: list[ProbedStudent | ProbeRow] = [
        source("random init", "random", resolve_init("scratch", network))
    ]
    if not any(name.startswith("inflated:") for name in named):
        inflated = _inflated(network)
        sources.append(
            inflated
            if isinstance(inflated, ProbeRow)
            else source("inflated ImageNet", "inflated", inflated)
        )
    sources += [
        source(name, "inflated" if init.kind == "inflated" else "init", init)
        for name, init in inits.items()
    ]
    _refuse_mixed_pixels([item for item in sources if isinstance(item, ProbedStudent)])
    return sources


def _inflated(network: StudentConfig) -> Init | ProbeRow:
    try:
        return resolve_init("inflated", network)
    except (ConfigError, WeightsError) as error:
        defined = isinstance(error, WeightsError)
        missing = f"{error.problem}; {error.remedy}" if defined else error.problem
        return ProbeRow(name="inflated ImageNet", kind="inflated", missing=missing)


def _refuse_mixed_pixels(sources: list[ProbedStudent]) -> None:
    channels = {item.init.student.in_channels for item in sources}
    if len(channels) > 1:
        raise ConfigError(
            "the inits read different pixels",
            expected="either students of RGB or students of flow",
            found=", ".join(f"{item.name}: {item.init.student.in_channels}" for item in sources),
            remedy="probe them separately",
        )


def probed_teachers(config: ProbeConfig) -> list[ProbedTeacher]:
    """The named teachers of ``config.cache``, or all of them; none without a cache.

    Raises CacheError if the cache is missing or incomplete, or lacks a named teacher.
    """
    if config.cache is None:
        return []
    cache = TargetCache.open(config.cache, allow_absent=True)
    for name in config.teachers:
        cache.targets(name)
    return [ProbedTeacher(cache, name) for name in config.teachers or sorted(cache.teachers)]
