"""Reads the tables of a cache unit by unit: frames with their hashes, and teachers' confidence."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.state import committed_units
from distinit.pipeline.cache.tables import column
from distinit.pipeline.cache.unit_tables import answered_rows, read_confidence, read_frames
from distinit.schemas.errors import CacheCorruptError

__all__ = ["ConfidenceRows", "FrameRows", "UnitRows", "read_units"]

Ints = NDArray[np.int64]

_READERS = 2  # threads; reading takes ten times as long as counting
_READ_AHEAD = 2  # units


@dataclass(frozen=True, slots=True)
class FrameRows:
    """The frames of one unit that the audit counts."""

    row_N: Ints
    video_N: Ints
    """Position of the video in videos.parquet."""
    frame_index_N: Ints
    hash_N: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class ConfidenceRows:
    """The rows of one unit for which a teacher has a usable output."""

    row_N: Ints
    video_N: Ints
    """Position of the video in videos.parquet."""
    frame_index_N: Ints
    entropy_nats_N: NDArray[np.float32]
    top1_class_N: NDArray[np.int32]
    top1_probability_N: NDArray[np.float32]

    def taken(self, place_M: Ints) -> ConfidenceRows:
        """The rows at these places."""
        return ConfidenceRows(
            self.row_N[place_M],
            self.video_N[place_M],
            self.frame_index_N[place_M],
            self.entropy_nats_N[place_M],
            self.top1_class_N[place_M],
            self.top1_probability_N[place_M],
        )


@dataclass(frozen=True, slots=True)
class UnitRows:
    """One unit: its frames, and the confidence of each teacher that was asked for."""

    unit: int
    frames: FrameRows
    teachers: Mapping[str, ConfidenceRows]


def read_units(
    cache: TargetCache,
    teacher_ids: Sequence[str],
    number_of: Mapping[str, int],
    left_out: Collection[int] = (),
) -> Iterator[UnitRows]:
    """Yields the units of the cache one after the other; the next ones are read ahead in threads.

    ``teacher_ids`` store logits. ``number_of``: video_id -> position in videos.parquet. Rows of
    the videos at the positions ``left_out`` are skipped, as are rows without a usable output.
    Raises CacheCorruptError for a table that differs from its commit record or does not match its
    frames.
    """
    layout, planned = cache.layout, cache.manifest.row_space.units
    committed = {name: frozenset(committed_units(layout, name, planned)) for name in teacher_ids}
    read = partial(_read_unit, cache, committed, number_of, list(left_out))
    futures: deque[Future[UnitRows]] = deque()
    with ThreadPoolExecutor(_READERS) as pool:
        for unit in sorted(frozenset().union(*committed.values())):
            futures.append(pool.submit(read, unit))
            if len(futures) > _READ_AHEAD:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()


def _read_unit(
    cache: TargetCache,
    committed: Mapping[str, frozenset[int]],
    number_of: Mapping[str, int],
    left_out: list[int],
    unit: int,
) -> UnitRows:
    layout, space = cache.layout, cache.manifest.row_space
    frames: FrameRows | None = None
    teachers = {}
    for teacher_id in (name for name, units in committed.items() if unit in units):
        record = cache.teachers[teacher_id]
        commit = read_commit(layout, record, unit)
        table = read_frames(layout, commit, space.capacity)
        confidence = read_confidence(layout, record, commit, space.capacity)
        video_N = _videos_of(table, number_of, unit)
        if not table["row"].equals(confidence["row"]):
            found = f"{confidence.num_rows} and {table.num_rows} rows"
            raise _no_match(unit, teacher_id, found)
        kept_N = ~np.isin(video_N, left_out)
        frames = frames or _frame_rows(table, video_N, kept_N)
        if commit.unanswered or commit.refused:
            kept_N &= answered_rows(table, commit).to_numpy()
        teachers[teacher_id] = _confidence_rows(table, confidence, video_N, kept_N)
    if frames is None:
        raise _no_match(unit, "", "no teacher that has it")
    return UnitRows(unit, frames, teachers)


def _videos_of(frames: pa.Table, number_of: Mapping[str, int], unit: int) -> Ints:
    """Position in videos.parquet of the video of each row: [N]."""
    ids = frames["video_id"].combine_chunks().dictionary_encode()
    numbers = np.array([number_of.get(name, -1) for name in ids.dictionary.to_pylist()], np.int64)
    if (numbers < 0).any():
        raise _no_match(unit, "", f"{(numbers < 0).sum()} unknown videos")
    video_N: Ints = numbers[ids.indices.to_numpy()] if len(ids) else np.zeros(0, np.int64)
    return video_N


def _frame_rows(frames: pa.Table, video_N: Ints, kept_N: NDArray[np.bool_]) -> FrameRows:
    return FrameRows(
        row_N=column(frames, "row")[kept_N],
        video_N=video_N[kept_N],
        frame_index_N=column(frames, "frame_index")[kept_N],
        hash_N=column(frames, "perceptual_hash")[kept_N],
    )


def _confidence_rows(
    frames: pa.Table, confidence: pa.Table, video_N: Ints, kept_N: NDArray[np.bool_]
) -> ConfidenceRows:
    return ConfidenceRows(
        row_N=column(frames, "row")[kept_N],
        video_N=video_N[kept_N],
        frame_index_N=column(frames, "frame_index")[kept_N],
        entropy_nats_N=column(confidence, "entropy_nats")[kept_N],
        top1_class_N=column(confidence, "top1_class")[kept_N],
        top1_probability_N=column(confidence, "top1_probability")[kept_N],
    )


def _no_match(unit: int, teacher_id: str, found: str) -> CacheCorruptError:
    of = f" of teacher {teacher_id}" if teacher_id else ""
    return CacheCorruptError(
        f"unit {unit}{of} does not match its frames",
        expected="the same rows, of videos in videos.parquet",
        found=found,
        remedy="run `distinit cache verify` and extract the damaged units again",
    )
