"""Exports the last-layer features of any init on a labelled dataset, for people's own tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import batched
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.datasets.labelled import LabelledVideos, open_labelled
from distinit.pipeline.evaluation.feature_files import (
    RECORD_NAME,
    read_features,
    read_features_record,
    write_features,
)
from distinit.pipeline.evaluation.features import FeatureReader
from distinit.pipeline.finetuning.init import Init, resolve_init
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.storage import (
    atomic_path,
    refuse_links,
    remove_dead_partials,
    storage_errors,
)
from distinit.pipeline.students.heads import Student
from distinit.pipeline.students.registry import check_clip
from distinit.pipeline.teachers.fingerprint import software_versions, state_dict_sha256
from distinit.pipeline.tensors import TensorShape, read_shapes, read_tensors, write_tensors
from distinit.pipeline.training.clips import check_pixels
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import FeaturesError
from distinit.schemas.features import (
    FeatureInputs,
    FeaturesConfig,
    FeaturesRecord,
    FeaturesResult,
    LabelledInput,
)
from distinit.schemas.run import StudentRecord
from distinit.schemas.training import FLOW_PIXELS, ClipConfig, StudentConfig

__all__ = ["FeatureExport", "clip_of", "features"]

_PART_VIDEOS = 64  # videos whose features are stored together, so that a killed export resumes
_PART = "part-{identity}-{number:05}.safetensors"


def features(
    config: FeaturesConfig,
    *,
    subset: Literal["train", "test"] | None = None,
    progress: Progress | None = None,
) -> FeaturesResult:
    """Write the features of one student on the videos of a dataset to the folder ``config.out``.

    ``subset``: only the training videos, or only the test videos; None: all of them.
    A killed export resumes; a finished one is kept. Raises ConfigError, DatasetError,
    CheckpointError, WeightsError and FeaturesError (the folder holds other features) before any
    work; FrameStoreError, StorageError, LockedError and ComputeError.
    """
    progress = progress or NullProgress()
    out = Path(config.out)
    refuse_inside_data(out)
    refuse_links(out)
    name = config.init or str(config.run)
    init = resolve_init(config.init or f"file:{config.run}", config.student)
    clip = clip_of(init.record, init.student, config.clip)
    check_clip(init.student, clip)
    labelled = open_labelled(config, out, init.student.in_channels, clip, progress)
    labelled = replace(labelled, subset=subset)
    record = FeatureExport.of(name, init, clip, labelled, config).write(out, progress)
    files = (*record.files, RECORD_NAME)
    return FeaturesResult(
        out=str(out), files=tuple(str(out / file) for file in files), record=record
    )


def clip_of(
    record: StudentRecord | None, student: StudentConfig, configured: ClipConfig
) -> ClipConfig:
    """The clip that ``record`` names, or the default one, with the ``configured`` fields."""
    if record is not None:
        base = record.clip
    else:
        base = ClipConfig.model_validate(FLOW_PIXELS if student.in_channels == 2 else {})
    changes = configured.model_dump(include=configured.model_fields_set)
    return ClipConfig.model_validate(base.model_dump() | changes)


@dataclass(frozen=True, slots=True)
class FeatureExport:
    """The features of one network on one dataset, before they are computed."""

    name: str
    student: Student
    inputs: FeatureInputs
    labelled: LabelledVideos
    config: LabelledInput

    @classmethod
    def of(
        cls,
        name: str,
        init: Init,
        clip: ClipConfig,
        labelled: LabelledVideos,
        config: LabelledInput,
    ) -> FeatureExport:
        """Build the network. Raises ConfigError, CheckpointError and WeightsError."""
        check_pixels(labelled.store, init.student, clip)
        student, _ = init.build(1, config.seed, head_only=False)
        inputs = FeatureInputs(
            network=init.student,
            weights_sha256=state_dict_sha256(student.get_submodule("backbone").state_dict()),
            clip=clip,
            protocol=config.evaluation.protocol,
            dataset_digest=labelled.dataset.content_digest(),
            rows_sha256=sha256_of([video.digest for video in labelled.decodable]),
            pixels_digest=labelled.store.pixels_digest(),
        )
        return cls(name, student, inputs, labelled, config)

    def write(self, folder: Path, progress: Progress) -> FeaturesRecord:
        """Compute the features and write them to ``folder``, unless it holds them already.

        Raises FeaturesError if the folder holds other features or damaged ones; FrameStoreError,
        StorageError, ComputeError.
        """
        remove_dead_partials(folder)
        if (known := _finished(folder, self.inputs)) is not None:
            progress.message(f"{folder} already holds the features of {self.name}")
            _remove_parts(folder)  # a process that was killed after the record may have left some
            return known
        videos = self.labelled.decodable
        ids = [self.labelled.store.by_digest[video.digest] for video in videos]
        reader = self._reader()
        features_ND = _computed(folder, self.inputs.identity()[:16], reader, ids, progress)
        record = FeaturesRecord(
            init=self.name,
            inputs=self.inputs,
            identity=self.inputs.identity(),
            feature_dim=self.student.feature_dim,
            videos=len(videos),
            classes=self.labelled.dataset.classes,
            undecodable=tuple(self.labelled.dataset.undecodable),
            device=str(reader.device),
            software=software_versions(),
            files={},
        )
        counts_N = torch.from_numpy(reader.clip_counts(ids))
        record = write_features(folder, features_ND, counts_N, videos, record)
        _remove_parts(folder)
        return record

    def _reader(self) -> FeatureReader:
        device = resolve_device(self.config.device)
        return FeatureReader(
            student=self.student.to(device).eval(),
            store=self.labelled.store,
            clip=self.inputs.clip,
            protocol=self.inputs.protocol,
            batch_size=self.config.batch_size,
            device=device,
            loader_threads=self.config.loader_workers,
        )


def _finished(folder: Path, inputs: FeatureInputs) -> FeaturesRecord | None:
    """The record in ``folder``, after its files were checked; None if there is none."""
    if not (folder / RECORD_NAME).is_file():
        return None
    record = read_features_record(folder)
    if record.identity != inputs.identity():
        raise FeaturesError(
            f"{folder} holds other features",
            expected=inputs.model_dump(mode="json"),
            found=record.inputs.model_dump(mode="json"),
            remedy="choose another --out",
        )
    read_features(folder)
    return record


def _computed(
    folder: Path, identity: str, reader: FeatureReader, ids: Sequence[str], progress: Progress
) -> Tensor:
    """float32 [N, D]. Parts that a killed export has stored are not computed again."""
    parts = []
    progress.start("features", len(ids), "videos")
    for number, chunk in enumerate(batched(ids, _PART_VIDEOS)):
        path = folder / _PART.format(identity=identity, number=number)
        part_ND = _stored_part(path, len(chunk), reader.student.feature_dim)
        if part_ND is None:
            part_ND = reader.features(chunk, progress)
            with atomic_path(path) as partial:
                write_tensors({"features_ND": part_ND}, partial)
        else:
            progress.advance(len(chunk))
        parts.append(part_ND)
    progress.finish()
    return torch.cat(parts)


def _remove_parts(folder: Path) -> None:
    with storage_errors(folder):
        for part in folder.glob("part-*.safetensors"):
            part.unlink()


def _stored_part(path: Path, count: int, dim: int) -> Tensor | None:
    """A part of the expected shape, or None."""
    expected = {"features_ND": TensorShape(torch.float32, (count, dim))}
    try:
        return (
            read_tensors(path, expected)["features_ND"] if read_shapes(path) == expected else None
        )
    except (OSError, ValueError):
        return None
