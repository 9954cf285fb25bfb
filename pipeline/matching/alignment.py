"""Aligns two sequences of perceptual hashes: which frame of a copy shows which frame of a video.

Pure. A *shift* of s frames means that frame ``i + s`` of the copy shows frame ``i`` of the video.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.video.hashing import hamming_distance

__all__ = ["NOT_ALIGNED", "Alignment", "align", "at_times_of", "evenly"]

WINDOW_FRAMES = 300
"""Largest shift that is looked for, in either direction: 10 s at 30 frames per second."""
SURE_Z = 3.0
"""How clearly the frames must prefer one shift to another (decision 46)."""
_SURE_BITS, _SURE_ROWS = 3.0, 3  # the same for few rows: mean difference in bits, number of rows
_CLOCK = 0.05  # of a frame's duration; containers round their clocks
_OTHER_BITS = 8.0  # mean difference in bits of other pictures
_MOST_ROWS = 2048  # rows of a video that the search compares, evenly spread
_FEWEST_OVERLAP = 0.5  # of the rows that the best-covered shift compares
_PART_ROWS, _PART_BITS = 6, 0.4  # fewest rows of a part, mean difference in bits
_PART_WINDOW = 3  # frames from the best shift: those that were dropped or repeated
_MIDDLE_ROWS = (16, 24, 32, 48, 64)  # rows of a part in the middle
_MIDDLE_Z = 3.3  # there are more of those parts, so one of them is further off by chance


@dataclass(frozen=True, slots=True)
class Alignment:
    """The best shift of a copy against a video.

    shift_frames      frame ``i + shift_frames`` of the copy shows frame ``i`` of the video
    agreeing_share    share of the compared rows whose hashes differ by at most ``max_bits``
    mean_bits         mean difference of their hashes
    compared          rows of the video of which the copy has the frame, at this shift
    zero_share        the same share at shift 0; 0 if nothing can be compared there
    is_sure           every other shift is clearly worse
    is_zero_excluded  shift 0 is clearly worse
    part_shift        another shift that a part of the video clearly has: frames are missing or
                      repeated there; None: there is no such part
    """

    shift_frames: int
    agreeing_share: float
    mean_bits: float
    compared: int
    zero_share: float
    is_sure: bool
    is_zero_excluded: bool
    part_shift: int | None


NOT_ALIGNED = Alignment(
    0, 0.0, 64.0, 0, 0.0, is_sure=False, is_zero_excluded=False, part_shift=None
)
"""Nothing could be compared."""


def align(
    frame_index_N: NDArray[np.int64],
    hash_N: NDArray[np.uint64],
    copy_hash_F: NDArray[np.uint64],
    max_bits: int,
    window_frames: int = WINDOW_FRAMES,
) -> Alignment:
    """Find the shift at which a copy shows the frames of a video.

    Args:
        frame_index_N: Frames of the video whose hashes are known, ascending.
        hash_N: Their hashes.
        copy_hash_F: Hashes of all frames of the copy.
        max_bits: Bits by which the hashes of two pictures of one frame may differ.
        window_frames: Shifts from -window_frames to window_frames are compared.

    Shifts at which fewer than half as many rows can be compared as at the best-covered one are
    left out. Of equally good shifts, the one closest to 0 is taken.
    """
    if not (len(frame_index_N) and len(copy_hash_F)):
        return NOT_ALIGNED
    keep_M = evenly(len(frame_index_N), _MOST_ROWS)
    distance_SM, shift_S = _distances(
        frame_index_N[keep_M], hash_N[keep_M], copy_hash_F, window_frames
    )
    compared_S = (distance_SM >= 0).sum(axis=1)
    usable_S = compared_S >= max(1.0, _FEWEST_OVERLAP * compared_S.max(initial=0))
    if not usable_S.any():
        return NOT_ALIGNED
    distance_SM, shift_S = distance_SM[usable_S], shift_S[usable_S]
    mean_S = np.where(distance_SM >= 0, distance_SM, 0).sum(axis=1) / compared_S[usable_S]
    best = int(np.argmin(mean_S))  # shifts are ordered by their size
    worse_S = _clearly_worse(distance_SM, best)
    others_S = np.arange(len(shift_S)) != best
    return Alignment(
        shift_frames=int(shift_S[best]),
        agreeing_share=_share(distance_SM[best], max_bits),
        mean_bits=float(mean_S[best]),
        compared=int((distance_SM[best] >= 0).sum()),
        zero_share=_share(distance_SM[shift_S == 0], max_bits),
        is_sure=bool(worse_S[others_S].all()),
        is_zero_excluded=not (shift_S == 0).any() or bool(worse_S[shift_S == 0].any()),
        part_shift=_part_shift(distance_SM, shift_S, best),
    )


def at_times_of(
    pts_seconds_N: NDArray[np.float64],
    frame_index_N: NDArray[np.int64],
    copy_pts_seconds_F: NDArray[np.float64],
) -> list[NDArray[np.int64]]:
    """Frames of the copy (int64 [K]) that may show the first K frames of the video.

    Converters choose frames in two ways: what was on the screen at the time of each new frame, or
    the nearest frame. So there are two answers: the copy's first frame within the duration of each
    frame of the video, and its frame in the middle of that duration. Times count from the first
    frame of each file, since containers begin at different times, and the frames of the video
    between its N known ones are taken to be evenly spaced. Without finite and increasing times
    there is no answer.
    """
    frames = int(frame_index_N[-1] - frame_index_N[0])
    finite = np.isfinite(pts_seconds_N).all() and np.isfinite(copy_pts_seconds_F).all()
    seconds = float(pts_seconds_N[-1] - pts_seconds_N[0]) if finite else 0.0
    if frames < 1 or seconds <= 0:
        return []
    interval_seconds = seconds / frames
    copy_seconds_F = np.maximum.accumulate(copy_pts_seconds_F - copy_pts_seconds_F[0])
    count = int(min(copy_seconds_F[-1] / interval_seconds, 4 * len(copy_seconds_F))) + 1
    begins_K = np.arange(count) * interval_seconds
    first_K = np.searchsorted(copy_seconds_F, begins_K - _CLOCK * interval_seconds, side="left")
    middle_K = np.searchsorted(copy_seconds_F, begins_K + interval_seconds / 2, side="right") - 1
    return [np.minimum(first_K, len(copy_seconds_F) - 1), middle_K]


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Up to ``most`` positions out of ``count``, evenly spread."""
    taken = min(count, most)
    return np.arange(taken) * count // max(1, taken)


def _distances(
    frame_index_M: NDArray[np.int64],
    hash_M: NDArray[np.uint64],
    copy_hash_F: NDArray[np.uint64],
    window_frames: int,
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Distances in bits [S, M], -1 where the copy has no such frame, and the shifts [S]."""
    shift_S = np.arange(-window_frames, window_frames + 1)
    shift_S = shift_S[np.argsort(np.abs(shift_S), kind="stable")]
    position_SM = frame_index_M[None] + shift_S[:, None]
    inside_SM = (position_SM >= 0) & (position_SM < len(copy_hash_F))
    position_SM[~inside_SM] = 0
    bits_SM = hamming_distance(hash_M[None], copy_hash_F[position_SM])
    return np.where(inside_SM, bits_SM, np.int16(-1)), shift_S


def _share(distance: NDArray[np.int16], max_bits: int) -> float:
    """Share of the known distances that are at most ``max_bits``; 0 if none is known."""
    known_K = distance[distance >= 0]
    return float((known_K <= max_bits).mean()) if len(known_K) else 0.0


def _clearly_worse(distance_SM: NDArray[np.int16], best: int) -> NDArray[np.bool_]:
    """bool [S]: which shifts are clearly worse than ``best``.

    The statistic is sum(d) / sqrt(sum(d * d)) over the differences d of both distances, for the
    rows that both compare: where the hashes say nothing, differences of both signs cancel each
    other. A shift that shows other pictures is worse in any case, on whichever rows.
    """
    more_SM, count_S = _more_bits(distance_SM, best)
    total_S = more_SM.sum(axis=1)
    spread_S = np.sqrt((more_SM**2).sum(axis=1))
    few_S = (count_S >= _SURE_ROWS) & (total_S >= _SURE_BITS * count_S)
    worse_S: NDArray[np.bool_] = (total_S > 0) & ((total_S > SURE_Z * spread_S) | few_S)
    return worse_S | _shows_other_pictures(distance_SM, best)


def _shows_other_pictures(distance_SM: NDArray[np.int16], best: int) -> NDArray[np.bool_]:
    known_SM = distance_SM >= 0
    count_S = known_SM.sum(axis=1)
    mean_S = np.where(known_SM, distance_SM, 0).sum(axis=1) / np.maximum(count_S, 1)
    others_S: NDArray[np.bool_] = (count_S >= _SURE_ROWS) & (mean_S - mean_S[best] >= _OTHER_BITS)
    return others_S


def _part_shift(
    distance_SM: NDArray[np.int16], shift_S: NDArray[np.int64], best: int
) -> int | None:
    """The shift that clearly fits a part of the video better than ``best``."""
    near_S = np.abs(shift_S - shift_S[best]) <= _PART_WINDOW
    near_S[best] = True
    part_SM, part_shift_S = distance_SM[near_S], shift_S[near_S]
    more_SM, _ = _more_bits(part_SM, int(np.flatnonzero(part_shift_S == shift_S[best])[0]))
    both_SM = (part_SM >= 0) & (distance_SM[best] >= 0)
    for step in (1, -1):  # the first rows, the last rows
        less_SM = -more_SM[:, ::step].cumsum(axis=1)
        spread_SM = np.sqrt((more_SM[:, ::step] ** 2).cumsum(axis=1))
        count_SM = both_SM[:, ::step].cumsum(axis=1)
        better_SM = (count_SM >= _PART_ROWS) & (less_SM > _PART_BITS * count_SM)
        sure_SM = np.where(better_SM, less_SM / np.maximum(spread_SM, 1e-9), 0)
        if sure_SM.max(initial=0) > SURE_Z:
            return int(part_shift_S[sure_SM.max(axis=1).argmax()])
    middle = _middle_shift(more_SM, both_SM)
    return None if middle is None else int(part_shift_S[middle])


def _middle_shift(more_SM: NDArray[np.float64], both_SM: NDArray[np.bool_]) -> int | None:
    """Position of the shift that clearly fits some rows in the middle better, if there is one.

    ``more_SM``: bits by which each shift is worse than the best one, for the rows of ``both_SM``.
    """
    best_z, found = _MIDDLE_Z, None
    for rows in _MIDDLE_ROWS:
        if rows > more_SM.shape[1]:
            break
        less_SW, square_SW, count_SW = (
            _window_sums(values_SM, rows) for values_SM in (-more_SM, more_SM**2, both_SM)
        )
        better_SW = (count_SW == rows) & (less_SW > _PART_BITS * rows)
        z_S = np.where(better_SW, less_SW / np.sqrt(np.maximum(square_SW, 1e-9)), 0).max(axis=1)
        if z_S.max() > best_z:
            best_z, found = float(z_S.max()), int(z_S.argmax())
    return found


def _window_sums(values_SM: NDArray[np.generic], rows: int) -> NDArray[np.float64]:
    """Sums of all ``rows`` consecutive values: [S, M - rows + 1]."""
    sums_SM = np.pad(values_SM.astype(np.float64).cumsum(axis=1), ((0, 0), (1, 0)))
    sums_SW: NDArray[np.float64] = sums_SM[:, rows:] - sums_SM[:, :-rows]
    return sums_SW


def _more_bits(
    distance_SM: NDArray[np.int16], best: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Bits [S, M] by which each shift is worse than ``best``, and how many rows both compare [S].

    The difference is 0 where one of them has no frame.
    """
    both_SM = (distance_SM >= 0) & (distance_SM[best] >= 0)
    more_SM = np.where(both_SM, distance_SM - distance_SM[best], 0).astype(np.float64)
    return more_SM, both_SM.sum(axis=1)
