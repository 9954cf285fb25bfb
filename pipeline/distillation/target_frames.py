"""Which frames of a video have targets, and which clip starts include one of them."""

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
    """First frame of a clip that contains a target frame, uniform over all starts that allow one.

    ``uniform`` lies in [0, 1). ``target_frames_R`` is sorted and not empty. If every start is
    allowed, the result equals that of ``random_clip_starts``.
    """
    if frame_count <= frames:
        return 0
    # For each target frame r: the starts whose clip contains r but not the target frame before it.
    first_R = np.maximum(target_frames_R.astype(np.int64) - frames + 1, 0)
    first_R[1:] = np.maximum(first_R[1:], target_frames_R[:-1] + 1)
    last_R = np.minimum(target_frames_R, frame_count - frames)
    count_R = np.maximum(last_R - first_R + 1, 0)
    end_R = np.cumsum(count_R)
    place = int(np.floor(uniform * end_R[-1]))
    r = int(np.searchsorted(end_R, place, "right"))
    return int(first_R[r] + place - (end_R[r] - count_R[r]))


class TargetFrames:
    """The frames of a cache that have targets. They are read from the memory-mapped index."""

    def __init__(self, index: TargetIndex, capacity: int, committed_U: Bools) -> None:
        """``capacity``: rows per unit. ``committed_U``: units whose targets are used."""
        self._index = index
        self._capacity = capacity
        self._committed_U = committed_U
        self._committed_before = np.concatenate([[0], np.cumsum(committed_U)])

    def any_of(self, number_N: Numbers) -> Bools:
        """Whether each video, given by its position in the index, has a target: bool [N]."""
        return self._units(number_N)[0] > 0

    def has_target(self, row_N: Ints) -> Bools:
        """Whether the rows, all of them used, are in a committed unit: bool [N]."""
        has_target_N: Bools = self._committed_U[row_N // self._capacity]
        return has_target_N

    def starts(
        self, number_N: Numbers, frame_count_N: Ints, uniform_N: Floats, frames: int
    ) -> Ints:
        """First frames [N] of clips of videos that have targets.

        Each is uniform over the starts whose clip contains a frame with a target. If all frames of
        a video have targets, it equals ``random_clip_starts``.
        """
        start_N = random_clip_starts(uniform_N, frame_count_N, frames)
        committed_N, units_N = self._units(number_N)
        sparse_N = self._index.row_count[number_N] < frame_count_N
        for i in np.flatnonzero(sparse_N | (committed_N < units_N)).tolist():
            target_frames_R = self._frames_of(int(number_N[i]))
            start_N[i] = start_with_target(
                float(uniform_N[i]), int(frame_count_N[i]), frames, target_frames_R
            )
        return start_N

    def _units(self, number_N: Numbers) -> tuple[Ints, Ints]:
        """For each video, the number of units that hold its rows: (committed [N], all [N])."""
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
