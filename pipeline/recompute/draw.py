"""Draws the rows to recompute: all rows are equally likely, so nobody can know which to leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.tables import column
from distinit.pipeline.cache.unit_tables import read_frames

__all__ = ["DrawnVideo", "draw_rows", "rows_by_video"]


@dataclass(frozen=True, slots=True)
class DrawnVideo:
    """Drawn rows of one video, in the order of its frames, and what the cache says of each.

    ``digest``: sha256 of its file. ``path``: as in ``videos.parquet``. ``time_base``: per row.
    """

    digest: str
    path: str
    row_N: np.ndarray
    frame_N: np.ndarray
    pts_N: np.ndarray
    hash_N: np.ndarray
    time_base: tuple[str, ...]


def draw_rows(cache: TargetCache, count: int, seed: int) -> tuple[np.ndarray, int]:
    """``count`` of the used rows, ascending and all different, and how many are used in all."""
    used = np.flatnonzero(np.asarray(cache.index.video_number) >= 0)
    drawn = np.random.default_rng(seed).choice(len(used), min(count, len(used)), replace=False)
    return np.sort(used[drawn]), len(used)


def rows_by_video(cache: TargetCache, row_N: np.ndarray) -> list[DrawnVideo]:
    """The rows, grouped by video, in the order of the rows.

    Raises CacheCorruptError if a frames table is missing or contradicts its commit.
    """
    facts = _FrameFacts(cache, row_N)
    columns = (cache.videos.column(name).to_pylist() for name in ("video_id", "digest", "path"))
    known = {video_id: (digest, path) for video_id, digest, path in zip(*columns, strict=True)}
    number_N = np.asarray(cache.index.video_number[row_N])
    videos = []
    for number in dict.fromkeys(number_N.tolist()):
        mine_N = number_N == number
        digest, path = known[cache.index.video_ids[number].decode()]
        videos.append(
            DrawnVideo(
                digest,
                path,
                row_N[mine_N],
                facts.frame_N[mine_N],
                facts.pts_N[mine_N],
                facts.hash_N[mine_N],
                tuple(facts.time_base_N[mine_N].tolist()),
            )
        )
    return videos


class _FrameFacts:
    """The entries of the frames tables for some ascending rows, each [N]."""

    def __init__(self, cache: TargetCache, row_N: np.ndarray) -> None:
        count = len(row_N)
        self.frame_N, self.pts_N = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.hash_N, self.time_base_N = np.zeros(count, np.uint64), np.zeros(count, object)
        capacity = cache.manifest.row_space.capacity
        record = next(iter(cache.teachers.values()))
        for unit in np.unique(row_N // capacity).tolist():
            table = read_frames(cache.layout, read_commit(cache.layout, record, unit), capacity)
            where_N = row_N // capacity == unit
            place_N = np.searchsorted(column(table, "row"), row_N[where_N])
            self.frame_N[where_N] = column(table, "frame_index")[place_N]
            self.pts_N[where_N] = column(table, "pts")[place_N]
            self.hash_N[where_N] = column(table, "perceptual_hash")[place_N]
            self.time_base_N[where_N] = table.column("time_base").take(place_N).to_pylist()
