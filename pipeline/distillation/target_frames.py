"""Which frames of a video have targets, and where a clip may begin so that it holds one of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.cache.index import TargetIndex
from distinit.pipeline.training.sampling import random_clip_starts

__all__ = ["TargetFrames", "start_with_target"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = NDArray[np.int32] | NDArray[np.int64]


def start_with_target(uniform: float, frame_count: int, frames: int, target_frames_R: Ints) -> int:
    """First frame of a clip that holds a target frame: uniform over all such starts that fit.

    ``target_frames_R`` ascends, and is not empty. Where every start will do, it is the one that
    ``random_clip_starts`` gives.
    """
    if frame_count <= frames:
        return 0
    # Of the starts whose clip holds target frame r, those whose clip does not hold the one before.
    first_R = np.maximum(target_frames_R.astype(np.int64) - frames + 1, 0)
    first_R[1:] = np.maximum(first_R[1:], target_frames_R[:-1] + 1)
    last_R = np.minimum(target_frames_R, frame_count - frames)
    count_R = np.maximum(last_R - first_R + 1, 0)
    end_R = np.cumsum(count_R)
    place = int(np.floor(uniform * end_R[-1]))
    r = int(np.searchsorted(end_R, place, "right"))
    return int(first_R[r] + place - (end_R[r] - count_R[r]))


class TargetFrames:
    """The frames with targets of the rows of a cache. Nothing of it is kept for each video."""

    def __init__(self, index: TargetIndex, capacity: int, committed_U: Bools) -> None:
        """``capacity``: rows of a unit. ``committed_U``: units of which targets are used."""
        self._index = index
        self._capacity = capacity
        self._committed_U = committed_U
        self._committed_before = np.concatenate([[0], np.cumsum(committed_U)])

    def any_of(self, number_N: Numbers) -> Bools:
        """Whether the videos with these numbers in the index have a frame with a target."""
        return self._units(number_N)[0] > 0

    def starts(
        self, number_N: Numbers, frame_count_N: Ints, uniform_N: Floats, frames: int
    ) -> Ints:
        """First frames of clips of videos that have targets: uniform over the starts whose clip
        holds a frame with one. If all frames have targets, ``random_clip_starts``."""
        start_N = random_clip_starts(uniform_N, frame_count_N, frames)
        committed_N, spanned_N = self._units(number_N)
        sparse_N = self._index.row_count[number_N] < frame_count_N
        for i in np.flatnonzero(sparse_N | (committed_N < spanned_N)).tolist():
            target_frames_R = self._frames_of(int(number_N[i]))
            start_N[i] = start_with_target(
                float(uniform_N[i]), int(frame_count_N[i]), frames, target_frames_R
            )
        return start_N

    def _units(self, number_N: Numbers) -> tuple[Ints, Ints]:
        """Units with rows of each video: how many are committed, how many there are."""
        first_N, count_N = self._index.first_row[number_N], self._index.row_count[number_N]
        unit_N = np.maximum(first_N, 0) // self._capacity
        end_N = np.where(count_N > 0, (first_N + count_N - 1) // self._capacity + 1, unit_N)
        before = self._committed_before
        return before[end_N] - before[unit_N], end_N - unit_N

    def _frames_of(self, number: int) -> Ints:
        first, count = int(self._index.first_row[number]), int(self._index.row_count[number])
        frames_R = np.asarray(self._index.frame_index[first : first + count])
        unit_R = np.arange(first, first + count) // self._capacity
        return frames_R[self._committed_U[unit_R]]
