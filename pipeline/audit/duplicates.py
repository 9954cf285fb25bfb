"""Which videos that look alike at a few places show the same frames throughout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.matching.alignment import align, evenly
from distinit.pipeline.matching.cache_hashes import CacheHashes
from distinit.schemas.matching import MatchLimits

__all__ = ["LIMITS", "are_copies", "duplicates"]

LIMITS = MatchLimits()
"""Those of `cache match`, decision 46."""
_MOST_ROWS = 512  # of a video that are compared
_WINDOW_FRAMES = 30

Hashes = NDArray[np.uint64]


def duplicates(
    cache: TargetCache, ids: Sequence[str], pairs: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The pairs (positions in ``ids``) whose frames agree in order, as those of a copy do.

    Raises CacheCorruptError for damaged tables, StorageError if their hashes cannot be stored.
    """
    if not pairs:
        return []
    hashes, index = CacheHashes(cache), cache.index
    videos = np.unique(np.array(pairs))
    names = np.array([ids[video].encode() for video in videos], np.bytes_)
    number_of = dict(zip(videos.tolist(), index.numbers_of(names).tolist(), strict=True))
    return [
        (one, other)
        for one, other in pairs
        if are_copies(*(hashes.of_number(number_of[video]) for video in (one, other)))
    ]


def are_copies(one_N: Hashes, other_M: Hashes) -> bool:
    """Whether two videos show the same frames in order, as far as their hashes [N], [M] can tell.

    Two clips of one person in front of one wall may agree in all frames. So the picture must move,
    too: the frames must fit clearly better than those a little earlier or later.
    """
    count = min(len(one_N), len(other_M), _MOST_ROWS)
    one_K, other_K = (hash_N[evenly(len(hash_N), count)] for hash_N in (one_N, other_M))
    found = align(np.arange(count), one_K, other_K, LIMITS.max_bits, _WINDOW_FRAMES)
    return found.is_sure and found.agreeing_share >= LIMITS.min_share
