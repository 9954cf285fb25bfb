"""The verdict on one pair: a video of the cache, and a file that may be a copy of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.matching.alignment import Alignment, align, at_times_of
from distinit.pipeline.matching.cache_hashes import CacheVideo, KnownFrames
from distinit.pipeline.matching.hash_parts import CopyHashes
from distinit.pipeline.matching.other_frames import other_frames
from distinit.schemas.matching import MatchLimits, Verdict
from distinit.schemas.wording import counted

__all__ = ["Comparison", "compare"]

_RATE_TOLERANCE = 0.02  # relative; containers round their clocks
_HOLES = "frames are missing or repeated"
_SHIFTED_KINDS = frozenset({"shifted", "cut"})  # of others, a shift says nothing
_FEWEST_COMPARED = 0.1  # share of the stored rows that a copy must have


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a file is to a video. ``kind`` "missing": it shows something else.

    ``fits``: same frames in the same order from the first frame on, as far as the hashes can tell.
    ``moves``: the pictures move enough for the hashes to prefer one shift to all others.
    """

    kind: Verdict
    fits: bool
    copy_frame_count: int
    shift_frames: int
    agreeing_share: float
    mean_bits: float
    reason: str = ""
    moves: bool = False


def compare(
    video: CacheVideo, known: KnownFrames, copy: CopyHashes, limits: MatchLimits
) -> Comparison:
    """Compare the stored hashes of a video with those of all frames of a file."""
    other_count = len(copy.hash_F) != video.frame_count
    if other_count and (timed := _at_other_rate(known, copy, limits)) is not None:
        return timed
    found = _align(known, copy.hash_F, limits)
    if not _is_same(found, known, limits.min_share):
        return _dropped_or_repeated(known, copy, limits, found)
    if found.part_shift is not None:
        by = counted(abs(found.part_shift - found.shift_frames), "frame")
        reason = f"{_HOLES}, since a part of it is shifted by {by}"
        return _verdict("cut", copy, found, reason)
    if found.shift_frames and found.is_sure:
        return _verdict("shifted", copy, found, _shift_reason(video, copy, found.shift_frames))
    if other_count:
        return _verdict("cut", copy, found, _cut_reason(video, copy, found))
    other = other_frames(known.index_N, known.hash_N, copy.hash_F, limits.max_bits)
    if other is not None:
        return _verdict("cut", copy, found, f"frames {other[0]} to {other[1]} show something else")
    if found.is_sure:
        return _verdict("re-encoded", copy, found, fits=True)
    return _undecidable(copy, found, limits)


def _is_same(found: Alignment, known: KnownFrames, min_share: float) -> bool:
    enough = found.compared >= max(1.0, _FEWEST_COMPARED * len(known.index_N))
    return enough and found.agreeing_share >= min_share


def _verdict(
    kind: Verdict, copy: CopyHashes, found: Alignment, reason: str = "", *, fits: bool = False
) -> Comparison:
    return Comparison(
        kind,
        fits,
        len(copy.hash_F),
        found.shift_frames if kind in _SHIFTED_KINDS else 0,
        found.agreeing_share,
        found.mean_bits,
        reason,
        found.is_sure,
    )


def _undecidable(copy: CopyHashes, found: Alignment, limits: MatchLimits) -> Comparison:
    """The picture hardly moves. It fits unless another shift is clearly better than none."""
    fits = not found.is_zero_excluded and found.zero_share >= limits.min_share
    reason = (
        "the picture hardly moves, so its hashes cannot rule out a shift"
        if fits
        else "another shift fits better than none, but none is clearly the best"
    )
    share = found.zero_share if fits else found.agreeing_share
    return Comparison("undecidable", fits, len(copy.hash_F), 0, share, found.mean_bits, reason)


def _at_other_rate(known: KnownFrames, copy: CopyHashes, limits: MatchLimits) -> Comparison | None:
    """The verdict if the file shows the frames at the same times, but at another frame rate."""
    rate = _frames_per_second(known.pts_seconds_N, known.index_N)
    copy_rate = _frames_per_second(copy.pts_seconds_F, np.arange(len(copy.pts_seconds_F)))
    if not (rate and copy_rate) or abs(copy_rate / rate - 1) <= _RATE_TOLERANCE:
        return None
    found = _align_by_time(known, copy, limits, copy_rate / rate)
    if found is None:
        return None
    reason = f"{copy_rate:.2f} frames per second instead of {rate:.2f}"
    return _verdict("other frame rate", copy, found, reason)


def _dropped_or_repeated(
    known: KnownFrames, copy: CopyHashes, limits: MatchLimits, found: Alignment
) -> Comparison:
    """The verdict where frame numbers do not agree: perhaps times do, else it is another video."""
    timed = _align_by_time(known, copy, limits)
    if timed is not None:
        reason = f"{_HOLES}, only presentation times agree"
        return _verdict("cut", copy, timed, reason)
    reason = f"it shows something else ({found.agreeing_share:.0%} of the frames agree)"
    return _verdict("missing", copy, found, reason)


def _align_by_time(
    known: KnownFrames, copy: CopyHashes, limits: MatchLimits, frames_ratio: float = 1.0
) -> Alignment | None:
    """The alignment of the frames displayed at the times of the video's; None: they differ.

    ``frames_ratio``: frames of the copy per frame of the video; below 1, some are left out.
    """
    share = limits.min_share * min(1.0, frames_ratio)
    fitting = [
        found
        for at_K in at_times_of(known.pts_seconds_N, known.index_N, copy.pts_seconds_F)
        for found in [_align(known, copy.hash_F[at_K], limits)]
        if _is_same(found, known, share)
    ]
    return max(fitting, key=lambda found: found.agreeing_share, default=None)


def _align(known: KnownFrames, hash_F: NDArray[np.uint64], limits: MatchLimits) -> Alignment:
    return align(known.index_N, known.hash_N, hash_F, limits.max_bits, limits.window_frames)


def _frames_per_second(pts_seconds_N: NDArray[np.float64], index_N: NDArray[np.int64]) -> float:
    """Most common frame rate; 0 if the times do not give one. Missing frames do not change it."""
    if len(index_N) < 2 or not np.isfinite(pts_seconds_N).all():
        return 0.0
    interval_seconds = float(np.median(np.diff(pts_seconds_N) / np.diff(index_N)))
    return 1 / interval_seconds if interval_seconds > 0 else 0.0


def _shift_reason(video: CacheVideo, copy: CopyHashes, shift_frames: int) -> str:
    begins = (
        f"its first frame is frame {-shift_frames} of the video"
        if shift_frames < 0
        else f"the video begins at its frame {shift_frames}"
    )
    by = counted(abs(shift_frames), "frame")
    return f"shifted by {by}, {begins}{_frames_it_has(video, copy, shift_frames)}"


def _cut_reason(video: CacheVideo, copy: CopyHashes, found: Alignment) -> str:
    frames = f"{counted(len(copy.hash_F), 'frame')} instead of {video.frame_count}"
    if not found.is_sure:
        return f"{frames}; which ones it has cannot be told, since a shift is not ruled out"
    return f"{frames}{_frames_it_has(video, copy, found.shift_frames)}"


def _frames_it_has(video: CacheVideo, copy: CopyHashes, shift_frames: int) -> str:
    first = max(0, -shift_frames)
    last = min(video.frame_count, len(copy.hash_F) - shift_frames) - 1
    if last < first:
        return ""
    return f"; it has frames {first} to {last} of 0 to {video.frame_count - 1}"
