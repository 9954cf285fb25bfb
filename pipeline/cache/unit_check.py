"""Deep check of one unit: its files against the commits, its tables against its targets.

Each file is read once: what is checked are the bytes that were hashed.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distinit.pipeline.cache.digest import StoredRows, unit_content_sha256
from distinit.pipeline.cache.encoding import ArraySpec, array_specs
from distinit.pipeline.cache.feature_moments import FeatureMoments, moments_of_rows
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.parquet_bounds import MAX_TABLE_BYTES
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.cache.plausible import first_implausible
from distinit.pipeline.cache.shard_rows import ShardError, ShardRows
from distinit.pipeline.cache.state import CacheState
from distinit.pipeline.cache.tables import column, parse_table
from distinit.pipeline.storage import open_regular, read_bounded
from distinit.pipeline.units import unit_name
from distinit.schemas.errors import CacheCorruptError, DistInitError
from distinit.schemas.manifest import FileEntry, UnitCommit
from distinit.schemas.tables import CONFIDENCE_SCHEMA, FEATURE_ROWS_SCHEMA, FRAMES_SCHEMA
from distinit.schemas.teacher import TeacherRecord

__all__ = ["UnitFindings", "VideoRows", "check_unit", "in_one_line"]

_BLOCK_ROWS = 2_048


@dataclass(frozen=True, slots=True)
class VideoRows:
    """The rows of one video in one unit. ``in_place``: in order, and where the plan puts them."""

    video_id: str
    count: int
    first_frame: int
    last_frame: int
    in_place: bool


@dataclass
class UnitFindings:
    """What was found in one unit.

    Attributes:
        unit: Its number.
        problems: One line each.
        damaged_files: Paths of files that differ from their commit.
        damaged_teachers: Teachers whose targets of the unit cannot be used.
        hashed: Path of a file that was read -> sha256.
        videos: The rows of its frames table, by video.
        moments: Teacher -> moments of its features, if they were asked for.
    """

    unit: int
    problems: list[str] = field(default_factory=list)
    damaged_files: set[str] = field(default_factory=set)
    damaged_teachers: set[str] = field(default_factory=set)
    hashed: dict[str, str] = field(default_factory=dict)
    videos: list[VideoRows] = field(default_factory=list)
    moments: dict[str, FeatureMoments] = field(default_factory=dict)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Record an error as a problem."""
        try:
            yield
        except DistInitError as error:
            self.problems.append(in_one_line(error))
        except OSError as error:
            self.problems.append(f"{error.filename}: {error.strerror}")


def in_one_line(error: DistInitError) -> str:
    """The problem, and what was expected and found."""
    details = [("expected", error.expected), ("found", error.found)]
    return "; ".join(
        [error.problem, *(f"{label} {text}" for label, text in details if text is not None)]
    )


def check_unit(
    layout: CacheLayout,
    state: CacheState,
    unit: int,
    absent: Collection[str],
    measured: Collection[str] = (),
) -> UnitFindings:
    """Read every file of a unit once, and check it for all teachers that have committed it.

    ``absent``: files that are known to be missing. ``measured``: feature teachers whose moments
    are computed.
    """
    return _UnitCheck(layout, state, unit, absent, measured).run()


class _UnitCheck:
    def __init__(
        self,
        layout: CacheLayout,
        state: CacheState,
        unit: int,
        absent: Collection[str],
        measured: Collection[str],
    ) -> None:
        self._layout = layout
        self._state = state
        self._unit = unit
        self._absent = absent
        self._measured = measured
        self._found = UnitFindings(unit)

    def run(self) -> UnitFindings:
        commits = {
            name: of_teacher[self._unit]
            for name, of_teacher in self._state.commits.items()
            if self._unit in of_teacher
        }
        if not commits:
            return self._found
        frames = self._frames(next(iter(commits.values())))
        for name, commit in commits.items():
            before = len(self._found.problems)
            with self._found.collect():
                self._check_teacher(self._state.records[name], commit, frames)
            damaged = self._found.damaged_files & commit.files.keys()
            if len(self._found.problems) > before or frames is None or damaged:
                self._found.damaged_teachers.add(name)
        return self._found

    def _frames(self, commit: UnitCommit) -> pa.Table | None:
        """The frames table, which all teachers share; None if it cannot be used."""
        name = self._layout.relative(self._layout.frames(self._unit))
        with self._found.collect():
            frames = self._table(name, commit.files[name], FRAMES_SCHEMA)
            if frames is None:
                return None
            row_N = column(frames, "row")
            if (row_N // self._state.plan.capacity == self._unit).all() and (
                np.diff(row_N) > 0
            ).all():
                self._found.videos = list(_videos_of(frames, self._state.plan.latest))
                return frames
            self._found.problems.append(
                f"{unit_name(self._unit)}: its rows belong to another unit, or are out of order"
            )
        return None

    def _table(self, name: str, entry: FileEntry, schema: pa.Schema) -> pa.Table | None:
        """A table whose bytes are those of the commit; None, and a problem, if they are not."""
        path = self._layout.root / name
        if name in self._absent or not self._has_size(name, entry, MAX_TABLE_BYTES):
            return None
        data = read_bounded(path, entry.size)
        if not self._has_digest(name, entry, data):
            return None
        return parse_table(data, schema, path)

    def _has_size(self, name: str, entry: FileEntry, limit_bytes: int | None = None) -> bool:
        size = (self._layout.root / name).lstat().st_size
        if size == entry.size and (limit_bytes is None or size <= limit_bytes):
            return True
        # Not hashed: a sparse file may be huge.
        self._damaged(name, f"{size} bytes, committed with {entry.size}")
        return False

    def _has_digest(self, name: str, entry: FileEntry, data: bytes | mmap.mmap) -> bool:
        found = hashlib.sha256(data).hexdigest()
        self._found.hashed[name] = found
        if found == entry.sha256:
            return True
        self._damaged(name, f"sha256 {found}, committed with {entry.sha256}")
        return False

    def _damaged(self, name: str, problem: str) -> None:
        self._found.damaged_files.add(name)
        self._found.problems.append(f"{name}: {problem}")

    def _check_teacher(
        self, record: TeacherRecord, commit: UnitCommit, frames: pa.Table | None
    ) -> None:
        is_features = record.identity.target == "features"
        schema = FEATURE_ROWS_SCHEMA if is_features else CONFIDENCE_SCHEMA
        name = self._layout.relative(self._layout.confidence(record.id, self._unit))
        confidence = self._table(name, commit.files[name], schema)
        arrays = self._arrays(record, commit)
        if frames is not None and confidence is not None and arrays is not None:
            self._check_rows(record, commit, frames, confidence, arrays)

    def _arrays(self, record: TeacherRecord, commit: UnitCommit) -> dict[str, StoredRows] | None:
        """The arrays of a teacher, memory-mapped; None if one of them cannot be used."""
        specs = array_specs(record.encoding, record.identity.classes)
        if not commit.rows:
            return {spec.name: np.zeros((0, spec.width), spec.dtype) for spec in specs}
        arrays: dict[str, StoredRows] = {}
        for spec in specs:
            with self._found.collect():
                rows = self._shard(record.id, spec, commit)
                if rows is not None:
                    arrays[spec.name] = rows
        return arrays if len(arrays) == len(specs) else None

    def _shard(self, teacher_id: str, spec: ArraySpec, commit: UnitCommit) -> ShardRows | None:
        path = self._layout.shard(teacher_id, spec.name, self._unit)
        name = self._layout.relative(path)
        entry = commit.files[name]
        if name in self._absent or not self._has_size(name, entry):
            return None
        data = _mapped(path, entry.size)
        if not self._has_digest(name, entry, data):
            return None
        try:
            rows = ShardRows(memoryview(data), spec, self._state.plan.capacity)
            rows.check()
        except ShardError as error:
            raise CacheCorruptError(
                f"the {error.part} of shard {name} is damaged",
                expected=error.expected,
                found=error.found,
            ) from error
        return rows

    def _check_rows(
        self,
        record: TeacherRecord,
        commit: UnitCommit,
        frames: pa.Table,
        confidence: pa.Table,
        arrays: Mapping[str, StoredRows],
    ) -> None:
        """Compare the tables, the values with their digest, and the tables with the values."""
        where, problems = f"{unit_name(self._unit)} of {record.id}", self._found.problems
        row_N, capacity = column(frames, "row"), self._state.plan.capacity
        if not np.array_equal(row_N, column(confidence, "row")) or len(row_N) != commit.rows:
            problems.append(f"{where}: tables and commit record disagree on the rows")
            return
        used_N = row_N - self._unit * capacity
        if unit_content_sha256(frames, confidence, arrays, used_N) != commit.content_sha256:
            problems.append(f"{where}: content digest differs from the commit record")
        problems += _check_unused(arrays, used_N, where)
        if record.identity.target == "logits":
            columns = {name: column(confidence, name) for name in confidence.schema.names}
            unanswered_N = _unanswered(frames, confidence, commit)
            wrong = first_implausible(record, arrays, used_N, columns, unanswered_N)
            if wrong is not None:
                problems.append(
                    f"{where}: confidence of row {row_N[wrong]} does not follow from its targets"
                )
        elif record.id in self._measured:
            moments = moments_of_rows(record, arrays, used_N)
            if not np.isfinite(moments.scatter).all():
                problems.append(f"{where}: features that are not finite")
            self._found.moments[record.id] = moments


def _mapped(path: Path, size_bytes: int) -> mmap.mmap | bytes:
    """The bytes of a regular file, without reading them into memory."""
    if not size_bytes:
        return b""
    descriptor = open_regular(path)
    try:
        return mmap.mmap(descriptor, size_bytes, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)


def _videos_of(frames: pa.Table, latest: Mapping[str, PlannedRows]) -> Iterator[VideoRows]:
    """Each row must be where the plan puts its video, and each frame must occur once."""
    row_N, index_N = column(frames, "row"), column(frames, "frame_index")
    coded = frames.column("video_id").combine_chunks().dictionary_encode()
    number_N = coded.indices.to_numpy(zero_copy_only=False)
    for number, video_id in enumerate(coded.dictionary.to_pylist()):
        mine_N = number_N == number
        index_M = index_N[mine_N]
        in_place = bool((np.diff(index_M) > 0).all()) and _rows_planned(
            latest.get(video_id), row_N[mine_N]
        )
        yield VideoRows(video_id, len(index_M), int(index_M[0]), int(index_M[-1]), in_place)


def _rows_planned(entry: PlannedRows | None, row_N: np.ndarray) -> bool:
    if entry is None:
        return False
    inside = row_N.min() >= entry.first_row
    return bool(inside and row_N.max() < entry.first_row + entry.reserved_rows)


def _check_unused(arrays: Mapping[str, StoredRows], used_N: np.ndarray, where: str) -> list[str]:
    for name, rows in arrays.items():
        unused_R = np.ones(rows.shape[0], bool)
        unused_R[used_N] = False
        unused_N = np.flatnonzero(unused_R)
        for start in range(0, len(unused_N), _BLOCK_ROWS):
            if rows[unused_N[start : start + _BLOCK_ROWS]].any():
                return [f"{where}: {name} has values in unused rows"]
    return []


def _unanswered(frames: pa.Table, confidence: pa.Table, commit: UnitCommit) -> np.ndarray:
    """bool [N]: rows for which the commit lists the video as without output, and that are NaN."""
    named = pa.array([*commit.unanswered, *commit.refused], pa.string())
    named_N = pc.is_in(frames.column("video_id"), named).to_numpy()
    unanswered_N: np.ndarray = named_N & np.isnan(column(confidence, "log_z"))
    return unanswered_N
