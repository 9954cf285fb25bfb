"""Collects the encoded rows of one unit in memory, then writes its files to a staging folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa

from distinit.pipeline.cache.confidence import Confidence, Fidelity, fidelity_sums
from distinit.pipeline.cache.digest import unit_content_sha256
from distinit.pipeline.cache.encoding import ArraySpec, array_specs
from distinit.pipeline.cache.feature_fidelity import FeatureFidelity, feature_fidelity_sums
from distinit.pipeline.cache.feature_moments import moments_of_rows
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.moments_file import StoredMoments, max_moments_bytes, write_moments
from distinit.pipeline.cache.output_stats import output_sums
from distinit.pipeline.cache.shard_rows import encode_shard
from distinit.pipeline.cache.tables import write_table
from distinit.pipeline.cache.target_rows import TargetRows
from distinit.pipeline.records import file_entry
from distinit.pipeline.storage import move_synced, storage_errors
from distinit.schemas.feature_sums import FeatureFidelitySums
from distinit.schemas.manifest import FidelitySums, FileEntry, OutputSums
from distinit.schemas.tables import CONFIDENCE_SCHEMA, FEATURE_ROWS_SCHEMA, FRAMES_SCHEMA
from distinit.schemas.teacher import TeacherRecord

__all__ = ["FrameRows", "StagedTeacher", "StagedUnit", "UnitBuffer"]

_UNUSED = -1


@dataclass(frozen=True, slots=True)
class FrameRows:
    """Which frames of one video some rows hold, arrays [N]."""

    video_id: str
    time_base: str
    frame_index: np.ndarray  # int64, ascending
    pts: np.ndarray  # int64, in units of time_base
    perceptual_hash: np.ndarray  # uint64

    @classmethod
    def of(
        cls,
        video_id: str,
        time_base: str,
        frame_index_N: np.ndarray,
        pts_N: np.ndarray,
        hash_N: np.ndarray,
    ) -> FrameRows:
        """Rows of arrays with any integer type."""
        return cls(
            video_id,
            time_base,
            np.asarray(frame_index_N, np.int64),
            np.asarray(pts_N, np.int64),
            np.asarray(hash_N, np.uint64),
        )

    def __len__(self) -> int:
        return len(self.frame_index)

    def __getitem__(self, part: slice) -> FrameRows:
        return FrameRows(
            self.video_id,
            self.time_base,
            self.frame_index[part],
            self.pts[part],
            self.perceptual_hash[part],
        )


@dataclass(frozen=True, slots=True)
class StagedTeacher:
    """Staged files of one teacher for one unit: final path -> (staged path, size and sha256).

    ``unpublished``: final path -> staged path of files that are no part of the cache.
    """

    files: Mapping[Path, tuple[Path, FileEntry]]
    unpublished: Mapping[Path, Path]
    content_sha256: str
    fidelity: FidelitySums | None
    feature_fidelity: FeatureFidelitySums | None
    answers: OutputSums | None

    def publish(self) -> None:
        """Move the files to their places. The commit record comes later."""
        for final, path in self.unpublished.items():
            move_synced(path, final)
        for final, (path, _) in self.files.items():
            move_synced(path, final)


@dataclass(frozen=True, slots=True)
class StagedUnit:
    """A finished unit in the staging folder, before its unit group is committed."""

    unit: int
    rows: int
    frames: pa.Table
    frames_file: Path
    teachers: Mapping[str, StagedTeacher]


class _TeacherRows:
    """Encoded rows of one teacher over a unit, their confidence, and what the encoding lost."""

    def __init__(self, record: TeacherRecord, capacity: int) -> None:
        self.record = record
        self.specs: tuple[ArraySpec, ...] = array_specs(record.encoding, record.identity.classes)
        self.arrays = {s.name: np.zeros((capacity, s.width), s.dtype) for s in self.specs}
        self.fidelity = Fidelity.zeros(capacity)
        self.feature_fidelity = FeatureFidelity.zeros(capacity)
        self.confidence: dict[str, np.ndarray] = {}
        if record.identity.target == "logits":
            names = [f.name for f in fields(Confidence)]
            types = [CONFIDENCE_SCHEMA.field(name).type.to_pandas_dtype() for name in names]
            self.confidence = {n: np.zeros(capacity, t) for n, t in zip(names, types, strict=True)}

    def put(self, rows: slice, targets: TargetRows) -> None:
        for name, values in targets.arrays.items():
            self.arrays[name][rows] = values
        for name, column in self.confidence.items():
            column[rows] = targets.confidence[name]
        if targets.fidelity is not None:
            self.fidelity.put(rows, targets.fidelity)
        if targets.feature_fidelity is not None:
            self.feature_fidelity.put(rows, targets.feature_fidelity)

    def put_missing(self, rows: slice) -> None:
        """Store NaN in all floats and class -1: this teacher has no output for these frames."""
        for values in (*self.arrays.values(), *self.confidence.values()):
            values[rows] = np.nan if np.issubdtype(values.dtype, np.floating) else 0
        self.feature_fidelity.put_missing(rows)
        if self.confidence:
            self.confidence["top1_class"][rows] = -1

    def clear(self, rows: slice) -> None:
        for values in self.arrays.values():
            values[rows] = 0

    def feature_fidelity_sums(self, used: np.ndarray) -> FeatureFidelitySums | None:
        if self.record.identity.target != "features" or not len(used):
            return None
        return feature_fidelity_sums(self.feature_fidelity, used)

    def fidelity_sums(self, used: np.ndarray) -> FidelitySums | None:
        if not self.confidence:
            return None
        entropy_nats = self.confidence["entropy_nats"]
        with_output = used[~np.isnan(entropy_nats[used])]
        return fidelity_sums(self.fidelity, entropy_nats, with_output)

    def output_sums(self, used: np.ndarray) -> OutputSums | None:
        if not self.confidence:
            return None
        with_output = used[~np.isnan(self.confidence["entropy_nats"][used])]
        return output_sums(self.confidence, self.record.identity.classes, with_output)

    def confidence_table(self, row_N: np.ndarray, used: np.ndarray) -> pa.Table:
        if not self.confidence:
            return pa.table({"row": row_N}, schema=FEATURE_ROWS_SCHEMA)
        columns = {"row": row_N, **{n: values[used] for n, values in self.confidence.items()}}
        return pa.table(columns, schema=CONFIDENCE_SCHEMA)


class UnitBuffer:
    """Rows of one unit. They may be filled in any order; rows of a failed video are cleared."""

    def __init__(self, unit: int, capacity: int, teachers: Sequence[TeacherRecord]) -> None:
        self.unit = unit
        self._capacity = capacity
        self._videos: list[tuple[str, str]] = []  # (video_id, time_base)
        # Of each row: its position in ``_videos``.
        self._video = np.full(capacity, _UNUSED, np.int32)
        self._frame_index = np.zeros(capacity, np.int64)
        self._pts = np.zeros(capacity, np.int64)
        self._hash = np.zeros(capacity, np.uint64)
        self._teachers = {record.id: _TeacherRows(record, capacity) for record in teachers}

    def put(
        self, first_row: int, frames: FrameRows, targets: Mapping[str, TargetRows | None] | None
    ) -> None:
        """Store consecutive rows, starting at ``first_row`` (0-based within this unit).

        ``targets``: by teacher id. None, for all teachers or for one of them: no outputs for this
        video.
        """
        rows = slice(first_row, first_row + len(frames))
        for teacher_id, teacher in self._teachers.items():
            given = None if targets is None else targets[teacher_id]
            if given is None:
                teacher.put_missing(rows)
            else:
                teacher.put(rows, given)
        key = (frames.video_id, frames.time_base)
        if key not in self._videos:
            self._videos.append(key)
        self._video[rows] = self._videos.index(key)
        self._frame_index[rows] = frames.frame_index
        self._pts[rows] = frames.pts
        self._hash[rows] = frames.perceptual_hash

    def clear(self, first_row: int, rows: int) -> None:
        """Remove rows, as if they had never been stored."""
        part = slice(max(first_row, 0), max(first_row + rows, 0))
        self._video[part] = _UNUSED
        for teacher in self._teachers.values():
            teacher.clear(part)

    def stage(self, layout: CacheLayout, folder: Path) -> StagedUnit:
        """Write all files of this unit to ``folder``."""
        used = np.flatnonzero(self._video != _UNUSED)
        frames = self._frames_table(used)
        frames_file = folder / "frames.parquet"
        write_table(frames, frames_file)
        teachers = {
            teacher_id: self._stage_teacher(layout, folder / teacher_id, frames, used)
            for teacher_id in self._teachers
        }
        return StagedUnit(self.unit, len(used), frames, frames_file, teachers)

    def _frames_table(self, used: np.ndarray) -> pa.Table:
        videos = [self._videos[number] for number in self._video[used].tolist()]
        columns = {
            "row": used.astype(np.int64) + self.unit * self._capacity,
            "video_id": [video_id for video_id, _ in videos],
            "frame_index": self._frame_index[used],
            "pts": self._pts[used],
            "time_base": [time_base for _, time_base in videos],
            "perceptual_hash": self._hash[used],
        }
        return pa.table(columns, schema=FRAMES_SCHEMA)

    def _stage_teacher(
        self, layout: CacheLayout, folder: Path, frames: pa.Table, used: np.ndarray
    ) -> StagedTeacher:
        teacher = self._teachers[folder.name]
        table = teacher.confidence_table(frames.column("row").to_numpy(), used)
        confidence_file = folder / "confidence.parquet"
        write_table(table, confidence_file)
        staged = {layout.confidence(folder.name, self.unit): confidence_file}
        for spec in teacher.specs if len(used) else ():
            final = layout.shard(folder.name, spec.name, self.unit)
            values = teacher.arrays[spec.name]
            staged[final] = folder / f"{spec.name}.shard"
            with storage_errors(folder):
                staged[final].write_bytes(encode_shard(spec, values, int(used[-1]) + 1))
        content_sha256 = unit_content_sha256(frames, table, teacher.arrays, used)
        return StagedTeacher(
            files={final: (path, file_entry(path)) for final, path in staged.items()},
            unpublished=self._stage_moments(layout, folder, teacher, used, content_sha256),
            content_sha256=content_sha256,
            fidelity=teacher.fidelity_sums(used),
            feature_fidelity=teacher.feature_fidelity_sums(used),
            answers=teacher.output_sums(used),
        )

    def _stage_moments(
        self,
        layout: CacheLayout,
        folder: Path,
        teacher: _TeacherRows,
        used: np.ndarray,
        content_sha256: str,
    ) -> dict[Path, Path]:
        """The moments of features, unless reading the rows again is less work than the moments."""
        record = teacher.record
        rows_bytes = len(used) * sum(spec.row_bytes for spec in teacher.specs)
        if (
            record.identity.target != "features"
            or max_moments_bytes(record.identity.channels) > rows_bytes
        ):
            return {}
        moments = moments_of_rows(record, teacher.arrays, used)
        path = folder / "moments.safetensors"
        write_moments(StoredMoments(moments, 1, bytes.fromhex(content_sha256)), path)
        return {layout.unit_moments(record.id, self.unit): path}
