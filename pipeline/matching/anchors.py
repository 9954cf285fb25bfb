"""Finds the videos that a file may be a copy of, without comparing it with all of them.

A few frames of each video are its *anchors*. Their hashes are indexed by four bands of 16 bits:
two hashes that differ in at most 3 bits agree in one band, and most that differ in a few more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.matching.alignment import evenly
from distinit.pipeline.matching.cache_hashes import CacheHashes, CacheVideo
from distinit.pipeline.video.hashing import hamming_distance

__all__ = ["AnchorIndex"]

_ANCHORS = 8  # frames per video
_BANDS, _BAND_BITS = 4, 16
_FEWEST_ONES, _MOST_ONES = 6, 58  # hashes beyond are those of black or evenly shaded frames
_MOST_QUERIES = 256  # different hashes of a file that are looked up
_MOST_PAIRS = 1 << 20  # per file; hashes that are everywhere are not looked up
_CANDIDATES = 8  # videos per file


class AnchorIndex:
    """The anchors of all videos: 80 bytes per anchor."""

    def __init__(self, videos: Sequence[CacheVideo], hashes: CacheHashes) -> None:
        """``videos``: those to be found; results are positions in this list."""
        picked = [anchors_of(hashes.of(video).hash_N) for video in videos]
        counts = [len(hash_A) for hash_A in picked]
        self._video_A = np.repeat(np.arange(len(videos)), counts)
        self._hash_A = np.concatenate([np.zeros(0, np.uint64), *picked])
        self._bands = [_Band(_band(self._hash_A, band)) for band in range(_BANDS)]

    def candidates(self, hash_F: NDArray[np.uint64], max_bits: int) -> list[int]:
        """Up to 8 videos of which the most anchors are among the frames of a file."""
        query_Q = np.unique(hash_F)
        query_Q = query_Q[evenly(len(query_Q), _MOST_QUERIES)]
        found = [
            self._close_anchors(band, query_Q, band_number, max_bits)
            for band_number, band in enumerate(self._bands)
        ]
        anchor_K = np.unique(np.concatenate(found))
        video_C, votes_C = np.unique(self._video_A[anchor_K], return_counts=True)
        best_C = np.argsort(-votes_C, kind="stable")[:_CANDIDATES]
        candidates: list[int] = video_C[best_C].tolist()
        return candidates

    def _close_anchors(
        self, band: _Band, query_Q: NDArray[np.uint64], number: int, max_bits: int
    ) -> NDArray[np.int64]:
        """Anchors that agree with a query in this band, and differ in few bits overall."""
        at_P, query_P = band.pairs(_band(query_Q, number))
        close_P = hamming_distance(self._hash_A[at_P], query_Q[query_P]) <= max_bits
        return at_P[close_P]


class _Band:
    """Anchors in the order of one band of their hashes."""

    def __init__(self, key_A: NDArray[np.uint16]) -> None:
        self._order_A = np.argsort(key_A, kind="stable")
        self._first_K = np.searchsorted(key_A[self._order_A], np.arange((1 << _BAND_BITS) + 1))

    def pairs(self, key_Q: NDArray[np.uint16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All pairs of an anchor and a query with the same key, the rarest keys first."""
        first_Q = self._first_K[key_Q]
        count_Q = self._first_K[key_Q.astype(np.int64) + 1] - first_Q
        order_Q = np.argsort(count_Q, kind="stable")
        order_Q = order_Q[np.cumsum(count_Q[order_Q]) <= _MOST_PAIRS]
        count_Q, first_Q = count_Q[order_Q], first_Q[order_Q]
        query_P = np.repeat(order_Q, count_Q)
        begin_Q = np.cumsum(count_Q) - count_Q
        inside_P = np.arange(len(query_P)) - np.repeat(begin_Q, count_Q)
        return self._order_A[np.repeat(first_Q, count_Q) + inside_P], query_P


def anchors_of(hash_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Up to 8 hashes of a video, evenly spread over its frames that show some structure."""
    ones_N = np.bitwise_count(hash_N)
    structured_K = hash_N[(ones_N >= _FEWEST_ONES) & (ones_N <= _MOST_ONES)]
    source_K = structured_K if len(structured_K) else hash_N
    return np.unique(source_K[evenly(len(source_K), _ANCHORS)])


def _band(hash_N: NDArray[np.uint64], number: int) -> NDArray[np.uint16]:
    return (hash_N >> np.uint64(number * _BAND_BITS)).astype(np.uint16)
