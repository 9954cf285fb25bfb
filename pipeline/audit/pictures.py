"""What perceptual hashes say about videos: flat, frozen, scene changes, copies of one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.runs import VideoRuns
from distinit.pipeline.audit.units import FrameRows
from distinit.pipeline.video.hashing import hamming_distance

__all__ = ["CUT_BITS", "FLAT_SHARE", "FROZEN_SHARE", "SAME_BITS", "PictureScan"]

CUT_BITS = 22
"""A frame that differs from the one before it in more bits begins a scene: of 64, chance is 32."""
SAME_BITS = 3
"""Hashes of one picture, encoded twice, differ in at most this many bits; see decision 53."""
FLAT_SHARE, FROZEN_SHARE = 0.9, 0.98
_LEAST_FRAMES = 8  # of a video that can be frozen
_CUTS_PER_VIDEO = 32
_QUARTERS = 3
_BANDS = 4
_LARGEST_BUCKET = 64  # videos with equal bits that are compared with one another

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]


class PictureScan:
    """Accumulates over the units of a cache. Memory grows with the number of videos."""

    def __init__(self, first_row_V: Ints, row_count_V: Ints) -> None:
        """``first_row_V``, ``row_count_V``: rows of each video, by position in videos.parquet."""
        videos = len(first_row_V)
        self._first_row_V = first_row_V
        self.frames_V = row_count_V
        place_VQ = row_count_V[:, None] * np.arange(1, _QUARTERS + 1) // (_QUARTERS + 1)
        self._quarter_VQ = first_row_V[:, None] + place_VQ
        self._hash_VQ = np.zeros((videos, _QUARTERS), np.uint64)
        self._flat_V = np.zeros(videos, np.int64)
        self._still_V = np.zeros(videos, np.int64)
        self.cuts: dict[int, list[int]] = defaultdict(list)
        """video -> indices of the first frames of its scenes but the first; a bounded number."""

    def add(self, rows: FrameRows) -> NDArray[np.bool_]:
        """Count the frames of one unit.

        Returns for each row but the first whether it shows the same picture as the one before it,
        in the same video: bool [N - 1].
        """
        if not len(rows.row_N):
            return np.zeros(0, np.bool_)
        runs = VideoRuns.of(rows.video_N)
        np.add.at(self._flat_V, runs.video_R, runs.sums(rows.hash_N == 0).astype(np.int64))
        pair_N = runs.pairs()
        distance_N = hamming_distance(rows.hash_N[1:], rows.hash_N[:-1])
        still_N = np.append(False, pair_N & (distance_N == 0))
        np.add.at(self._still_V, runs.video_R, runs.sums(still_N).astype(np.int64))
        for place in (np.flatnonzero(pair_N & (distance_N > CUT_BITS)) + 1).tolist():
            cuts = self.cuts[int(rows.video_N[place])]
            if len(cuts) < _CUTS_PER_VIDEO:
                cuts.append(int(rows.frame_index_N[place]))
        for quarter in range(_QUARTERS):
            at_N = rows.row_N == self._quarter_VQ[rows.video_N, quarter]
            self._hash_VQ[rows.video_N[at_N], quarter] = rows.hash_N[at_N]
        same_N: NDArray[np.bool_] = pair_N & (distance_N <= SAME_BITS)
        return same_N

    def flat(self) -> list[int]:
        """Videos of which nearly all frames have one brightness, such as black ones."""
        is_flat_V = self._flat_V >= FLAT_SHARE * np.maximum(self.frames_V, 1)
        found: list[int] = np.flatnonzero(is_flat_V).tolist()
        return found

    def frozen(self) -> list[int]:
        """Videos whose frames all show one picture; flat ones are not listed."""
        pairs_V = self.frames_V - 1
        is_frozen_V = (pairs_V >= _LEAST_FRAMES - 1) & (self._still_V >= FROZEN_SHARE * pairs_V)
        is_frozen_V &= (self._hash_VQ == self._hash_VQ[:, :1]).all(axis=1)
        found: list[int] = np.setdiff1d(np.flatnonzero(is_frozen_V), self.flat()).tolist()
        return found

    def copies(self) -> list[tuple[int, int]]:
        """Pairs of videos that show the same pictures at a quarter, a half and three quarters.

        They may be copies: ``duplicates`` compares all of their frames. Flat videos are left out.
        To be compared, two videos must share 16 bits of two of their hashes, which hashes that
        differ in 3 bits always do.
        """
        usable_V = np.flatnonzero((self.frames_V > 0) & (self._hash_VQ != 0).any(axis=1))
        usable_V = np.setdiff1d(usable_V, self.flat())
        found = [np.zeros((0, 2), np.int64)]
        for bands in product(range(_BANDS), repeat=2):
            key_K = np.zeros(len(usable_V), np.uint64)
            for band, quarter in zip(bands, (0, _QUARTERS - 1), strict=True):
                bits_K = self._hash_VQ[usable_V, quarter] >> np.uint64(16 * band)
                key_K = key_K << np.uint64(16) | bits_K & np.uint64(0xFFFF)
            order_K = np.argsort(key_K, kind="stable")
            found += self._same_pairs(usable_V[order_K], key_K[order_K])
        pairs_P2 = np.unique(np.concatenate(found), axis=0)
        return [(one, other) for one, other in pairs_P2.tolist()]

    def _same_pairs(self, video_K: Ints, key_K: Hashes) -> Iterator[Ints]:
        """Pairs [P, 2] of the first videos of each bucket; videos of one bucket have equal keys.

        Each video is compared with the next one of its bucket, then with the one after it, and so
        on: one step over all buckets at once.
        """
        place_K = np.arange(len(key_K))
        starts_K = np.append(True, key_K[1:] != key_K[:-1])[: len(key_K)]
        rank_K = place_K - np.maximum.accumulate(np.where(starts_K, place_K, 0))
        keep_K = rank_K < _LARGEST_BUCKET
        video_K, rank_K = video_K[keep_K], rank_K[keep_K]
        for step in range(1, int(rank_K.max(initial=0)) + 1):
            (other_P,) = np.nonzero(rank_K >= step)
            one_P, other_P = video_K[other_P - step], video_K[other_P]
            for quarter in range(_QUARTERS):
                bits_P = hamming_distance(
                    self._hash_VQ[one_P, quarter], self._hash_VQ[other_P, quarter]
                )
                one_P, other_P = one_P[bits_P <= SAME_BITS], other_P[bits_P <= SAME_BITS]
            yield np.stack([one_P, other_P], axis=1)
