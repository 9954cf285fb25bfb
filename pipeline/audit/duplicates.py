"""Which videos that look alike at a few places show the same frames throughout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.state import committed_units
from distinit.pipeline.cache.tables import column
from distinit.pipeline.cache.unit_tables import read_frames
from distinit.pipeline.matching.alignment import align, evenly
from distinit.schemas.matching import MatchLimits

__all__ = ["LIMITS", "MOST_PAIRS", "Duplicates", "are_copies", "duplicates"]

LIMITS = MatchLimits()
"""Those of `cache match`, decision 46."""
_MOST_ROWS = 512  # of a video that are compared
_WINDOW_FRAMES = 30
_READERS = 2
MOST_PAIRS = 10_000
"""Pairs that are compared: they take 1 ms and up to 16 KB each."""

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Which of the pairs of videos that may be copies are copies."""

    pairs: Sequence[tuple[int, int]]
    """Positions in videos.parquet."""
    left_out: int = 0
    """Pairs that may be copies, but were not compared because there are too many."""


def duplicates(
    cache: TargetCache,
    ids: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    most: int = MOST_PAIRS,
) -> Duplicates:
    """The pairs (positions in ``ids``) whose frames agree in order, as those of a copy do.

    The first ``most`` pairs are compared. Reads the frames tables of their units, and keeps up to
    16 KB per pair. Raises CacheCorruptError for damaged tables.
    """
    compared = pairs[:most]
    rows = [tuple(_compared_rows(cache, [ids[video] for video in pair])) for pair in compared]
    row_R = np.unique(np.concatenate([np.zeros(0, np.int64), *(r for pair in rows for r in pair)]))
    hash_R = _hashes(cache, row_R)
    found = [
        pair
        for pair, (one_K, other_K) in zip(compared, rows, strict=True)
        if are_copies(*(hash_R[np.searchsorted(row_R, row_K)] for row_K in (one_K, other_K)))
    ]
    return Duplicates(found, len(pairs) - len(compared))


def _compared_rows(cache: TargetCache, ids: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """The rows of each of two videos that are compared with one another."""
    index = cache.index
    number_V = index.numbers_of(np.array([video_id.encode() for video_id in ids], np.bytes_))
    first_V, count_V = index.first_row[number_V], index.row_count[number_V]
    for first, count in zip(first_V.tolist(), count_V.tolist(), strict=True):
        yield first + evenly(count, min(int(count_V.min()), _MOST_ROWS))


def _hashes(cache: TargetCache, row_R: NDArray[np.int64]) -> Hashes:
    """The hashes of rows, ascending; reads the tables of their units only."""
    layout, space = cache.layout, cache.manifest.row_space
    teacher_of = {
        unit: record
        for name, record in cache.teachers.items()
        for unit in committed_units(layout, name, space.units)
    }

    def read(unit: int) -> Hashes:
        table = read_frames(layout, read_commit(layout, teacher_of[unit], unit), space.capacity)
        wanted = row_R[slice(*np.searchsorted(row_R // space.capacity, [unit, unit + 1]))]
        place_M = np.searchsorted(column(table, "row"), wanted)
        hash_M: Hashes = column(table, "perceptual_hash")[place_M]
        return hash_M

    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(read, np.unique(row_R // space.capacity).tolist())
        return np.concatenate([np.zeros(0, np.uint64), *found])


def are_copies(one_N: Hashes, other_M: Hashes) -> bool:
    """Whether two videos show the same frames in order, as far as their hashes [N], [M] can tell.

    Two clips of one person in front of one wall may agree in all frames. So the picture must move,
    too: the frames must fit clearly better than those a little earlier or later.
    """
    count = min(len(one_N), len(other_M), _MOST_ROWS)
    one_K, other_K = (hash_N[evenly(len(hash_N), count)] for hash_N in (one_N, other_M))
    found = align(np.arange(count), one_K, other_K, LIMITS.max_bits, _WINDOW_FRAMES)
    return found.is_sure and found.agreeing_share >= LIMITS.min_share
