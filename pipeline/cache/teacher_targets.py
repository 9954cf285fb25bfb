"""The stored targets of one teacher: by video and frame, or by row."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from distinit.pipeline.cache.encoding import ArraySpec, array_specs, decode
from distinit.pipeline.cache.feature_statistics import FeatureStatistics, read_statistics
from distinit.pipeline.cache.frame_times import FrameTimes
from distinit.pipeline.cache.index import TargetIndex
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.remote_shards import RemoteShards
from distinit.pipeline.cache.shards import ShardReader
from distinit.pipeline.cache.video_targets import VideoTargets, no_entropy
from distinit.pipeline.open_files import files_at_once
from distinit.schemas.errors import CacheCorruptError, CacheError
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.teacher import TeacherRecord

__all__ = ["OpenCache", "TeacherTargets"]


class OpenCache(Protocol):
    """What the targets of a teacher need of their cache."""

    layout: CacheLayout
    manifest: CacheManifest
    remote: RemoteShards | None

    @property
    def index(self) -> TargetIndex: ...

    def rows_of(self, video_id: str, frames: Sequence[int] | np.ndarray | None) -> np.ndarray: ...


class TeacherTargets:
    """The stored targets of one teacher.

    Safe to share between threads. Picklable; each process opens its own files.
    """

    def __init__(self, cache: OpenCache, record: TeacherRecord) -> None:
        self.cache = cache
        self.record = record
        self._specs = array_specs(record.encoding, record.identity.classes)
        # All readers are kept, since they remember which chunks were verified; only the most
        # recently used ones keep their file open.
        self._shards: dict[tuple[str, int], ShardReader] = {}
        self._open: OrderedDict[tuple[str, int], ShardReader] = OrderedDict()
        self._lock = threading.Lock()  # for both: no shard may be closed while it is read
        self._times = FrameTimes(cache.layout, record, cache.manifest.row_space.capacity)

    @property
    def stored_record(self) -> TeacherRecord:
        """The teacher whose stored values are read; ``record`` describes what is made of them."""
        return self.record

    @property
    def video_ids(self) -> tuple[str, ...]:
        """Ids of the videos that this teacher has targets for, sorted."""
        index = self.cache.index
        first_V, count_V = np.asarray(index.first_row), np.asarray(index.row_count)
        has_V = count_V > 0
        for row_V in (first_V, first_V + count_V - 1):
            has_V &= self.committed_units[np.where(has_V, row_V, 0) // self.unit_rows]
        has_V[index.video_number[index.unanswered(self.record.id)]] = False
        return tuple(video_id.decode() for video_id in index.video_ids[has_V])

    def of(self, video_id: str, frames: Sequence[int] | np.ndarray | None = None) -> VideoTargets:
        """The targets of frames of one video, in the order of ``frames``; None: all its targets.

        ``frames`` are 0-based indices of decoded frames, in display order.

        Raises:
            CacheError: The cache or this teacher has no targets for the video, or a frame has none.
            CacheCorruptError: A target is missing from the files, or damaged.
        """
        row_N = self.cache.rows_of(video_id, frames)
        if np.isin(row_N, self.cache.index.unanswered(self.record.id)).any():
            raise CacheError(
                f"teacher {self.record.id} has no targets for video {video_id}",
                expected="one of TeacherTargets.video_ids",
                remedy="leave the video out, or use another teacher",
            )
        has_entropy = self.record.identity.target == "logits"
        return VideoTargets(
            video_id=video_id,
            teacher_id=self.record.id,
            frame_N=self.cache.index.frame_index[row_N].astype(np.int64),
            pts_seconds_N=self._times.pts_seconds(row_N),
            logits_NC=self.logits(row_N),
            entropy_nats_N=np.array(self.entropy_nats[row_N]) if has_entropy else None,
        )

    @cached_property
    def entropy_nats(self) -> np.ndarray:
        """fp32 [rows_padded], memory-mapped; NaN in unused rows.

        Raises CacheError for a teacher that stores features, which have no entropy.
        """
        if self.record.identity.target == "features":
            raise no_entropy(self.record.id)
        return self.cache.index.teacher_column(self.record.id, "entropy_nats")

    @cached_property
    def feature_statistics(self) -> FeatureStatistics:
        """Mean and covariance over all rows of the cache. Raises as ``read_statistics``."""
        return read_statistics(self.cache.layout, self.record)

    @cached_property
    def _log_z(self) -> np.ndarray | None:
        if not self.record.encoding.startswith("topk"):
            return None
        return self.cache.index.teacher_column(self.record.id, "log_z")

    @property
    def unit_rows(self) -> int:
        """Rows per unit."""
        return self.cache.manifest.row_space.capacity

    @cached_property
    def committed_units(self) -> np.ndarray:
        """bool [units]: which units this teacher has committed."""
        return self.cache.index.committed(self.record.id)

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Targets of the given rows, fp32 [N, C] in the same order; rows may repeat.

        Raises:
            CacheError: A row is outside of the cache.
            CacheCorruptError: A row was never written, or its shard is missing or damaged.
        """
        rows_N = np.asarray(rows, np.int64)
        stored = self.stored(rows_N)
        log_z_N = None if self._log_z is None else np.asarray(self._log_z[rows_N])
        with np.errstate(all="ignore"):  # values that are not finite raise an error below
            logits_NC = decode(stored, self.record.encoding, self.record.identity.classes, log_z_N)
            self._check_finite(rows_N, logits_NC)
        return logits_NC

    def stored(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The encoded targets of the given rows: array -> [N, width]. Raises as ``logits``."""
        rows_N = np.asarray(rows, np.int64)
        unit_N = self._check_rows(rows_N)
        capacity = self.cache.manifest.row_space.capacity
        stored = {s.name: np.empty((len(rows_N), s.width), s.dtype) for s in self._specs}
        for unit in sorted(set(unit_N.tolist())):  # faster than np.unique for a clip
            where_N = np.flatnonzero(unit_N == unit)
            inside_N = rows_N[where_N] - unit * capacity
            with self._lock:
                for spec in self._specs:
                    self._shard(spec, unit).read_into(inside_N, stored[spec.name], where_N)
        return stored

    def _check_finite(self, rows_N: np.ndarray, logits_NC: np.ndarray) -> None:
        """Raise for values that are not finite, except in rows without an output of the teacher."""
        if np.isfinite(logits_NC.sum()):  # fast: a value that is not finite shows in the sum
            return
        wrong_N = ~np.isfinite(logits_NC).all(axis=1)
        wrong_N &= ~np.isin(rows_N, self.cache.index.unanswered(self.record.id))
        if wrong_N.any():
            raise CacheCorruptError(
                f"teacher {self.record.id} has targets that are not finite",
                expected="finite values",
                found=f"NaN or infinity in row {int(rows_N[wrong_N][0])}",
                remedy=f"run `{self.cache.layout.verify_command()}`; ask the sender of "
                "the cache for a clean copy",
            )

    def _check_rows(self, rows_N: np.ndarray) -> np.ndarray:
        space, index = self.cache.manifest.row_space, self.cache.index
        outside = (rows_N < 0) | (rows_N >= space.rows_padded)
        if outside.any():
            raise CacheError(
                "a row is outside of the cache",
                expected=f"0 .. {space.rows_padded - 1} (-1 marks a frame without a row)",
                found=int(rows_N[outside][0]),
                remedy="remove frames without a row before reading targets",
            )
        unit_N = rows_N // space.capacity
        unwritten = (index.video_number[rows_N] < 0) | ~self.committed_units[unit_N]
        if unwritten.any():
            raise CacheCorruptError(
                f"teacher {self.record.id} never wrote a requested row",
                expected="rows from cache.index.rows_of",
                found=f"row {int(rows_N[unwritten][0])}",
                remedy="take rows from the index of this cache; extract again if it is incomplete",
            )
        return unit_N

    def _shard(self, spec: ArraySpec, unit: int) -> ShardReader:
        key = (spec.name, unit)
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        if key not in self._shards:
            self._shards[key] = self._new_reader(spec, unit)
        self._open[key] = self._shards[key]
        remote = self.cache.remote
        most = files_at_once() if remote is None else remote.most_open(spec, self.unit_rows)
        if len(self._open) > most:
            self._open.popitem(last=False)[1].release()
        return self._shards[key]

    def _new_reader(self, spec: ArraySpec, unit: int) -> ShardReader:
        if self.cache.remote is not None:
            return self.cache.remote.open_shard(self.record, spec, unit, self.unit_rows)
        return ShardReader(self.cache.layout, self.record.id, spec, unit, self.unit_rows)

    def __reduce__(self) -> tuple[type[TeacherTargets], tuple[Any, ...]]:
        return TeacherTargets, (self.cache, self.record)  # open files belong to one process
