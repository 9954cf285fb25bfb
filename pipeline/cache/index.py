"""The columns of the tables that training reads, memory-mapped; derived on first use.

There is no Python object per frame, so 1e8 rows take address space but no memory: passes over all
rows release the pages that they have read. The index is never published with the cache. See
derived.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distinit.pipeline.cache.layout import DAMAGE_REMEDY, CacheLayout
from distinit.pipeline.cache.parquet_bounds import MAX_TABLE_BYTES
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.state import check_rows, committed_units
from distinit.pipeline.cache.tables import column
from distinit.pipeline.cache.unit_tables import (
    answered_rows,
    contradiction,
    read_confidence,
    read_frames,
)
from distinit.pipeline.derived import (
    columns_are_valid,
    derive_columns,
    find_texts,
    map_column,
    new_column,
    release_pages,
)
from distinit.pipeline.records import MAX_RECORD_BYTES
from distinit.pipeline.storage import sha256_file
from distinit.schemas.errors import CacheCorruptError, CacheError
from distinit.schemas.manifest import RowSpace, UnitCommit
from distinit.schemas.teacher import TeacherRecord

__all__ = ["TargetIndex", "build_index", "index_key"]

_VERSION = 2
_FREE_ROWS = 1 << 24
_ROWS_PER_BYTE = 64  # a real shard takes at least one byte per row


def index_key(layout: CacheLayout, space: RowSpace, records: Mapping[str, TeacherRecord]) -> str:
    """sha256 over the files that determine the index: plan, videos, teachers, commits.

    The commit records contain the sha256 of each table, which is checked while the index is built.
    The digest that the manifest states is not used: a cache could state that of another one.

    Raises CacheCorruptError if one of these files cannot be read.
    """
    digest = hashlib.sha256(f"distinit target index {space.capacity} {space.units}\n".encode())
    for path in _key_files(layout, space, records):
        limit_bytes = MAX_TABLE_BYTES if path.suffix == ".parquet" else MAX_RECORD_BYTES
        try:
            sha256 = sha256_file(path, limit_bytes)
        except OSError as error:
            raise CacheCorruptError(
                f"cannot read {path}", found=error.strerror, remedy=DAMAGE_REMEDY
            ) from error
        digest.update(f"{layout.relative(path)} {sha256}\n".encode())
    return digest.hexdigest()


def _key_files(
    layout: CacheLayout, space: RowSpace, records: Mapping[str, TeacherRecord]
) -> Iterator[Path]:
    yield layout.plan
    if layout.videos.exists():  # it is written at the end of an extraction
        yield layout.videos
    for name in sorted(records):
        yield layout.teacher_record(name)
        for unit in committed_units(layout, name, space.units):
            yield layout.commit(name, unit)


class TargetIndex:
    """Per-row and per-video columns of one cache, memory-mapped and read-only.

    Attributes:
        video_ids: bytes [V], sorted; the position of a video in it is its number.
        first_row, row_count: int64 [V]; the rows of a video are consecutive.
        frame_index: int32 [rows_padded], -1 where a row is unused.
        video_number: int32 [rows_padded], -1 where a row is unused.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._maps: dict[str, np.ndarray] = {}
        self.video_ids = self._map("video_ids")
        self.first_row = self._map("first_row")
        self.row_count = self._map("row_count")
        self.frame_index = self._map("frame_index")
        self.video_number = self._map("video_number")

    @classmethod
    def open(cls, folder: Path, rows: int) -> TargetIndex | None:
        """The index in ``folder``; None if it is missing, damaged or has another number of rows."""
        if not columns_are_valid(folder, _VERSION):
            return None
        index = cls(folder)
        return index if len(index.frame_index) == len(index.video_number) == rows else None

    def _map(self, name: str) -> np.ndarray:
        if name not in self._maps:
            self._maps[name] = map_column(self.folder, name)
        return self._maps[name]

    def release_pages(self) -> None:
        """Take what was read out of resident memory: for a pass over more rows than fit."""
        for values in self._maps.values():
            release_pages(values)

    def teacher_column(self, teacher_id: str, name: str) -> np.ndarray:
        """``entropy_nats`` or ``log_z`` of one teacher, fp32 [rows_padded], NaN where unused."""
        return self._map(f"{name}-{teacher_id}")

    def committed(self, teacher_id: str) -> np.ndarray:
        """bool [units]: which units this teacher has committed."""
        return self._map(f"committed-{teacher_id}")

    def unanswered(self, teacher_id: str) -> np.ndarray:
        """int64 [M], ascending: used rows without an output of this teacher; they are NaN."""
        return self._map(f"unanswered-{teacher_id}")

    def number_of(self, video_id: str) -> int:
        """The number of a video. Raises CacheError if the cache has no such video."""
        position_1, found_1 = find_texts(self.video_ids, np.array([video_id.encode()]))
        if not found_1[0]:
            raise CacheError(
                f"the cache has no rows of video {video_id}",
                expected=f"one of {len(self.video_ids)} videos",
                found=video_id,
                remedy="extract this video into the cache, or leave it out",
            )
        return int(position_1[0])

    def numbers_of(self, video_ids: np.ndarray) -> np.ndarray:
        """The numbers (int64 [N]) of videos, given ids as bytes. Raises as ``number_of``."""
        position_N, found_N = find_texts(self.video_ids, video_ids)
        if not found_N.all():
            self.number_of(video_ids[~found_N][0].decode())
        return position_N

    def rows_of_videos(self, numbers_N: np.ndarray, frame_indices_NT: np.ndarray) -> np.ndarray:
        """Rows (int64 [N, T]) of T frames of each of N videos, -1 for frames without a row.

        ``numbers_N`` are numbers of videos, as ``numbers_of`` gives them. One binary search runs
        for all frames of the batch at once.
        """
        frame_NT = np.asarray(frame_indices_NT, np.int64)
        first_N1 = np.asarray(self.first_row[numbers_N])[:, None]
        end_N1 = first_N1 + np.asarray(self.row_count[numbers_N])[:, None]
        low_NT = np.broadcast_to(first_N1, frame_NT.shape).copy()
        high_NT = np.broadcast_to(end_N1, frame_NT.shape).copy()
        while (open_NT := low_NT < high_NT).any():
            middle_NT = (low_NT + high_NT) // 2
            below_NT = open_NT & (self.frame_index[np.where(open_NT, middle_NT, 0)] < frame_NT)
            low_NT = np.where(below_NT, middle_NT + 1, low_NT)
            high_NT = np.where(open_NT & ~below_NT, middle_NT, high_NT)
        found_NT = low_NT < end_N1
        found_NT[found_NT] = self.frame_index[low_NT[found_NT]] == frame_NT[found_NT]
        return np.where(found_NT, low_NT, -1)

    def rows_of(self, video_id: str, frame_indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows (int64 [T]) of T frames of one video, -1 for frames without a row.

        As ``rows_of_videos``, for a video that is given by its id. Raises CacheError if the cache
        has no such video.
        """
        number_1 = np.array([self.number_of(video_id)])
        rows_1T = self.rows_of_videos(number_1, np.asarray(frame_indices, np.int64)[None])
        rows_T: np.ndarray = rows_1T[0]
        return rows_T


def build_index(
    layout: CacheLayout,
    planned_ids_V: np.ndarray,
    space: RowSpace,
    records: Mapping[str, TeacherRecord],
    folder: Path,
    stored_bytes: int | None = None,
) -> TargetIndex:
    """Build the index from the tables, checking each against its commit record.

    Only one table and one commit record are in memory at a time. ``planned_ids_V``: bytes, sorted.
    ``stored_bytes``: size of the shards, if they are not in the folder of the cache.

    Raises:
        CacheCorruptError: A table is damaged or contradicts its commit, or there are more rows
            than the shards can hold.
        StorageError: The folder cannot be written.
    """
    _check_rows_exist(layout, space, records, stored_bytes)
    write = partial(_build_into, layout, planned_ids_V, space, records)
    derive_columns(folder, _VERSION, write)
    return TargetIndex(folder)


def _check_rows_exist(
    layout: CacheLayout,
    space: RowSpace,
    records: Mapping[str, TeacherRecord],
    stored_bytes: int | None,
) -> None:
    """The index takes a few bytes per row: numbers in a manifest alone must not fill the disk."""
    shards = (
        layout.shard(name, "logits", unit)
        for name in records
        for unit in committed_units(layout, name, space.units)
    )
    if stored_bytes is None:
        stored_bytes = sum(path.stat().st_size for path in shards if path.is_file())
    if space.rows_padded > _FREE_ROWS + _ROWS_PER_BYTE * stored_bytes:
        raise CacheCorruptError(
            f"the manifest of {layout.root} claims more rows than its shards can hold",
            expected=f"shards for {space.units} units of {space.capacity} rows",
            found=f"{stored_bytes} bytes of shards",
            remedy="do not use this cache; ask its sender for a clean copy",
        )


def _build_into(
    layout: CacheLayout,
    planned_ids_V: np.ndarray,
    space: RowSpace,
    records: Mapping[str, TeacherRecord],
    folder: Path,
) -> None:
    columns = {
        "video_ids": planned_ids_V,
        "first_row": np.full(len(planned_ids_V), -1, np.int64),
        "row_count": np.zeros(len(planned_ids_V), np.int64),
    }
    per_row = {"frame_index": np.int32, "video_number": np.int32}
    maps = {name: _RowColumn(folder, name, space, dtype, -1) for name, dtype in per_row.items()}
    teacher_of = {
        unit: record
        for name, record in records.items()
        for unit in committed_units(layout, name, space.units)
    }
    unit_rows = {
        unit: _index_frames(
            layout, space.capacity, read_commit(layout, record, unit), columns, maps
        )
        for unit, record in sorted(teacher_of.items(), key=lambda item: item[0])
    }
    for written in maps.values():
        written.finish()
    for name, values in columns.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)
    for record in records.values():
        _index_teacher(layout, space, record, unit_rows, folder)


def _index_frames(
    layout: CacheLayout,
    capacity: int,
    commit: UnitCommit,
    columns: Mapping[str, np.ndarray],
    maps: Mapping[str, _RowColumn],
) -> int:
    """Add the frames of one unit to the index; returns their number."""
    path = layout.frames(commit.unit)
    table = read_frames(layout, commit, capacity)
    row_N = column(table, "row")
    coded = table.column("video_id").combine_chunks().dictionary_encode()
    names = np.array([v.encode() for v in coded.dictionary.to_pylist()], dtype=np.bytes_)
    number_D, found_D = find_texts(columns["video_ids"], names)
    if not found_D.all():
        raise contradiction(path, "videos of the plan", "a video that is not in the plan")
    number_N = number_D[coded.indices.to_numpy(zero_copy_only=False)] if len(row_N) else row_N
    index_N = column(table, "frame_index")
    maps["frame_index"].write(commit.unit, row_N, index_N)
    maps["video_number"].write(commit.unit, row_N, number_N)
    _add_videos(columns, row_N, number_N, index_N, path)
    return commit.rows


def _add_videos(
    columns: Mapping[str, np.ndarray],
    row_N: np.ndarray,
    number_N: np.ndarray,
    index_N: np.ndarray,
    path: Path,
) -> None:
    """Extend ``first_row`` and ``row_count`` by one unit.

    Raises CacheCorruptError unless the rows of each video are consecutive and in frame order:
    the binary search for rows relies on both.
    """
    found, start_F, count_F = np.unique(number_N, return_index=True, return_counts=True)
    same_video = number_N[1:] == number_N[:-1]
    runs = len(number_N) - int(same_video.sum())
    one_block = runs == len(found) and (np.diff(row_N)[same_video] == 1).all()
    if not (one_block and (np.diff(index_N)[same_video] > 0).all()):
        raise contradiction(path, "consecutive rows per video, in frame order", "another order")
    begins = columns["row_count"][found] == 0  # else it continues from the previous unit
    columns["first_row"][found[begins]] = row_N[start_F[begins]]
    ends_F = columns["first_row"][found] + columns["row_count"][found]
    if (row_N[start_F] != ends_F).any():
        raise contradiction(path, "consecutive rows per video", "rows of a video in two places")
    columns["row_count"][found] += count_F


def _index_teacher(
    layout: CacheLayout,
    space: RowSpace,
    record: TeacherRecord,
    unit_rows: Mapping[int, int],
    folder: Path,
) -> None:
    committed, unanswered = np.zeros(space.units, bool), [np.zeros(0, np.int64)]
    names = ["entropy_nats", "log_z"] if record.encoding.startswith("topk") else ["entropy_nats"]
    if record.identity.target == "features":
        names = []
    maps = {n: _RowColumn(folder, f"{n}-{record.id}", space, np.float32, np.nan) for n in names}
    for unit in committed_units(layout, record.id, space.units):
        commit = read_commit(layout, record, unit)
        check_rows(record.id, commit, unit_rows[unit], space.capacity)
        committed[unit] = True
        if commit.unanswered or commit.refused:
            frames = read_frames(layout, commit, space.capacity)
            row_N = column(frames, "row")
            unanswered.append(row_N[~answered_rows(frames, commit).to_numpy()])
        if not names:
            continue
        table = read_confidence(layout, record, commit, space.capacity)
        row_N = column(table, "row")
        for name, written in maps.items():
            written.write(unit, row_N, column(table, name))
    for written in maps.values():
        written.finish()
    columns = {"committed": committed, "unanswered": np.concatenate(unanswered)}
    for name, values in columns.items():
        np.save(folder / f"{name}-{record.id}.npy", values, allow_pickle=False)


class _RowColumn:
    """A column of the index that is written unit by unit; each unit once, in any order."""

    def __init__(self, folder: Path, name: str, space: RowSpace, dtype: Any, empty: float) -> None:
        self._values = new_column(folder, name, space.rows_padded, dtype)
        self._capacity, self._empty = space.capacity, empty
        self._is_written = np.zeros(space.units, np.bool_)

    def write(self, unit: int, row_N: np.ndarray, value_N: np.ndarray) -> None:
        """Write the rows of one unit; those that are not in ``row_N`` are empty."""
        first = unit * self._capacity
        block_N = np.full(self._capacity, self._empty, self._values.dtype)
        block_N[row_N - first] = value_N
        self._values[first : first + self._capacity] = block_N
        self._is_written[unit] = True
        release_pages(self._values)

    def finish(self) -> None:
        """Fill the units that were not written."""
        nothing = np.zeros(0, np.int64)
        for unit in np.flatnonzero(~self._is_written).tolist():
            self.write(unit, nothing, nothing)
