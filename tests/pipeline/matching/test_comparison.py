"""The verdict on one pair of a video and a file."""

from __future__ import annotations

import numpy as np
import pytest

from distinit.pipeline.matching.cache_hashes import CacheVideo, KnownFrames
from distinit.pipeline.matching.comparison import Comparison, compare
from distinit.pipeline.matching.hash_parts import CopyHashes
from distinit.schemas.matching import MatchLimits

FRAMES = 60
HASHES = np.random.default_rng(0).integers(0, 2**64, 4 * FRAMES, np.uint64)


def verdict_on(
    hash_F: np.ndarray,
    fps: float = 25,
    *,
    rows: np.ndarray | None = None,
    own: np.ndarray = HASHES[:FRAMES],
    **limits: float,
) -> Comparison:
    """The verdict on a file with these hashes, for a video of 60 frames at 25 fps."""
    rows = np.arange(FRAMES) if rows is None else rows
    known = KnownFrames(rows, own[rows], rows / 25)
    copy = CopyHashes("1" * 64, hash_F, np.arange(len(hash_F)) / fps)
    video = CacheVideo(0, "v", "v.mp4", "0" * 64, FRAMES)
    return compare(video, known, copy, MatchLimits.model_validate(limits))


def test_the_same_frames_are_re_encoded_at_any_time_base() -> None:
    for fps in (25, 30):  # frames are counted, so a file that runs faster has the same ones
        found = verdict_on(HASHES[:FRAMES], fps)
        assert (found.kind, found.fits, found.agreeing_share) == ("re-encoded", True, 1.0)


def test_a_file_with_the_right_count_can_still_be_shifted() -> None:
    found = verdict_on(HASHES[1 : FRAMES + 1])
    assert (found.kind, found.fits, found.shift_frames) == ("shifted", False, -1)
    assert found.reason == (
        "shifted by 1 frame, its first frame is frame 1 of the video; it has frames 1 to 59 of 0 "
        "to 59"
    )
    late = verdict_on(np.concatenate([HASHES[-3:], HASHES[:FRAMES]]))
    assert (late.kind, late.shift_frames) == ("shifted", 3)
    assert late.reason == (
        "shifted by 3 frames, the video begins at its frame 3; it has frames 0 to 59 of 0 to 59"
    )


def test_a_longer_or_shorter_file_is_cut() -> None:
    shorter = verdict_on(HASHES[:40])
    assert (shorter.kind, shorter.reason) == (
        "cut",
        "40 frames instead of 60; it has frames 0 to 39 of 0 to 59",
    )
    longer = verdict_on(HASHES[:70])
    assert longer.reason == "70 frames instead of 60; it has frames 0 to 59 of 0 to 59"


def test_a_shift_beyond_the_window_is_something_else() -> None:
    copy = np.concatenate([HASHES[-30:], HASHES[:FRAMES]])
    assert verdict_on(copy, window_frames=29).kind == "missing"
    assert verdict_on(copy, window_frames=30).shift_frames == 30


def test_another_frame_rate_is_found_in_all_frames_and_in_a_sample() -> None:
    at_30 = HASHES[:FRAMES][np.arange(72) * 25 // 30]
    for rows in (np.arange(FRAMES), np.arange(0, FRAMES, 6)):
        found = verdict_on(at_30, 30, rows=rows)
        assert (found.kind, found.reason) == (
            "other frame rate",
            "30.00 frames per second instead of 25.00",
        )


def test_half_the_frame_rate_is_recognised_although_every_other_frame_is_missing() -> None:
    found = verdict_on(HASHES[:FRAMES:2], 12.5)
    assert (found.kind, found.reason) == (
        "other frame rate",
        "12.50 frames per second instead of 25.00",
    )


def test_a_static_picture_fits_unless_its_count_differs() -> None:
    still = np.full(FRAMES, HASHES[0])
    found = verdict_on(still, own=still)
    assert (found.kind, found.fits, found.shift_frames) == ("undecidable", True, 0)
    shorter = verdict_on(still[1:], own=still)
    assert (shorter.kind, shorter.reason) == (
        "cut",
        "59 frames instead of 60; which ones it has cannot be told, since a shift is not ruled out",
    )


def test_a_part_of_another_video_makes_a_cut_although_most_frames_agree() -> None:
    steps = np.left_shift(np.uint64(1), np.arange(FRAMES, dtype=np.uint64))
    own = np.bitwise_xor.accumulate(steps)  # one bit changes from frame to frame
    copy = own.copy()
    copy[30:35] = HASHES[:5]
    found = verdict_on(copy, own=own)
    assert (found.kind, found.fits, found.shift_frames) == ("cut", False, 0)
    assert found.reason == "frames 30 to 34 show something else"
    copy[30:35] = own[30:35]
    copy[20:50] = own[21:51]
    found = verdict_on(copy, own=own)
    assert (found.kind, found.fits) == ("cut", False)
    assert (
        found.reason == "frames are missing or repeated, since a part of it is shifted by 1 frame"
    )
    assert found.agreeing_share == 1.0


def test_a_share_below_the_limit_is_something_else() -> None:
    copy = HASHES[:FRAMES].copy()
    copy[:56:8] = HASHES[-7:]  # 53 of 60 agree
    found = verdict_on(copy)
    assert (found.kind, found.fits) == ("missing", False)
    assert found.reason == "it shows something else (88% of the frames agree)"
    assert verdict_on(copy, min_share=0.88).kind == "re-encoded"


@pytest.mark.parametrize("pts", [np.nan, np.inf, -np.inf, 0.0])
def test_impossible_times_do_not_matter_where_frame_numbers_agree(pts: float) -> None:
    known = KnownFrames(np.arange(FRAMES), HASHES[:FRAMES], np.full(FRAMES, pts))
    copy = CopyHashes("1" * 64, HASHES[:FRAMES], np.full(FRAMES, pts))
    video = CacheVideo(0, "v", "v.mp4", "0" * 64, FRAMES)
    assert compare(video, known, copy, MatchLimits()).kind == "re-encoded"
    other = CopyHashes("1" * 64, HASHES[FRAMES : 2 * FRAMES + 1], np.full(FRAMES + 1, pts))
    assert compare(video, known, other, MatchLimits()).kind == "missing"
