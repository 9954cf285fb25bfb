"""The perceptual hashes that a cache stores, memory-mapped per row; derived on first use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.cache.frame_times import seconds_of
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.state import committed_units
from distinit.pipeline.cache.tables import column
from distinit.pipeline.cache.unit_tables import read_frames
from distinit.pipeline.derived import (
    columns_are_valid,
    derive_columns,
    index_folder,
    map_column,
    new_column,
)

__all__ = ["CacheHashes", "CacheVideo", "KnownFrames"]

_VERSION = 1
_COLUMNS = ("video_id", "path", "digest", "status", "frame_count", "in_corpus")


@dataclass(frozen=True, slots=True)
class CacheVideo:
    """A video of the cache that can be trained on. ``number``: its position in the index."""

    number: int
    video_id: str
    path: str
    digest: str
    frame_count: int


@dataclass(frozen=True, slots=True)
class KnownFrames:
    """Frames of one video: indices (ascending), hashes and presentation times, all [N]."""

    index_N: NDArray[np.int64]
    hash_N: NDArray[np.uint64]
    pts_seconds_N: NDArray[np.float64]


class CacheHashes:
    """Hashes and times of the rows of a cache, without a Python object per row."""

    def __init__(self, cache: TargetCache) -> None:
        """Derive the columns, unless this machine has them.

        Raises CacheCorruptError for damaged tables, StorageError if they cannot be stored.
        """
        self._cache = cache
        index = cache.index  # checks that the rows fit the shards
        key = hashlib.sha256(f"distinit hashes {index.folder.name}".encode()).hexdigest()
        folder = index_folder(key)
        if not columns_are_valid(folder, _VERSION):
            derive_columns(folder, _VERSION, self._write)
        self._hash_R = map_column(folder, "perceptual_hash")
        self._pts_seconds_R = map_column(folder, "pts_seconds")

    def videos(self) -> Iterator[CacheVideo]:
        """The videos with rows that are in the owner's corpus, ordered by id."""
        index = self._cache.index
        for batch in self._cache.video_batches(_COLUMNS):
            rows = [
                row
                for row in batch.to_pylist()
                if row["status"] == "ok" and row["in_corpus"] and row["frame_count"] > 0
            ]
            ids = np.array([row["video_id"].encode() for row in rows], np.bytes_)
            for number, row in zip(index.numbers_of(ids).tolist(), rows, strict=True):
                if index.row_count[number]:
                    yield CacheVideo(
                        number, row["video_id"], row["path"], row["digest"], row["frame_count"]
                    )

    def of(self, video: CacheVideo) -> KnownFrames:
        """What the cache stores of one video; its rows may be a sample of its frames."""
        index = self._cache.index
        first, count = int(index.first_row[video.number]), int(index.row_count[video.number])
        rows = slice(first, first + count)
        return KnownFrames(
            index.frame_index[rows].astype(np.int64),
            self._hash_R[rows],
            self._pts_seconds_R[rows],
        )

    def of_number(self, number: int) -> NDArray[np.uint64]:
        """Hashes [N] of the rows of the video at this position in the index of the cache."""
        first, count = (
            int(column[number])
            for column in (self._cache.index.first_row, self._cache.index.row_count)
        )
        hash_N: NDArray[np.uint64] = self._hash_R[first : first + count]
        return hash_N

    def _write(self, folder: Path) -> None:
        cache = self._cache
        space, layout = cache.manifest.row_space, cache.layout
        hash_R = new_column(folder, "perceptual_hash", space.rows_padded, np.uint64)
        pts_seconds_R = new_column(folder, "pts_seconds", space.rows_padded, np.float64)
        teacher_of = {
            unit: record
            for name, record in cache.teachers.items()
            for unit in committed_units(layout, name, space.units)
        }
        for unit, record in sorted(teacher_of.items(), key=lambda item: item[0]):
            table = read_frames(layout, read_commit(layout, record, unit), space.capacity)
            row_N = column(table, "row")
            hash_R[row_N] = column(table, "perceptual_hash")
            pts_seconds_R[row_N] = seconds_of(table, layout.frames(unit))
