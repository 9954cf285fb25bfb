"""Copies agree in nearly all of their frames; clips that only look alike do not."""

from __future__ import annotations

import numpy as np
import pytest

from distinit.pipeline.audit.duplicates import are_copies

BACKGROUND = np.uint64(0x1234_5678_9ABC_DEF0)


def clip(seed: int, moving: slice, frames: int = 100) -> np.ndarray:
    """Hashes of a still background, in front of which something moves for some frames."""
    hash_N = np.full(frames, BACKGROUND)
    rng = np.random.default_rng(seed)
    hash_N[moving] = rng.integers(2**63, size=frames).astype(np.uint64)[moving]
    return hash_N


@pytest.mark.parametrize(("bits", "expected"), [(0b1111, True), (0b11111, False)])
def test_a_copy_may_differ_in_a_few_bits(bits: int, expected: bool) -> None:
    original = clip(0, slice(None))
    assert are_copies(original, original ^ np.uint64(bits)) is expected


def test_clips_in_front_of_one_background_are_no_copies() -> None:
    one, other = clip(1, slice(55, 70)), clip(2, slice(55, 70))
    assert one[[25, 50, 75]].tolist() == other[[25, 50, 75]].tolist()
    assert not are_copies(one, other)


def test_clips_whose_motion_the_hashes_do_not_see_are_no_copies() -> None:
    rng = np.random.default_rng(3)
    one, other = (
        BACKGROUND ^ np.uint64(1) * rng.integers(0, 2, 50).astype(np.uint64) for _ in "ab"
    )
    assert not are_copies(one, other)
    assert not are_copies(clip(4, slice(0)), clip(5, slice(0)))


def test_frames_are_compared_at_the_same_relative_places() -> None:
    original = clip(6, slice(None))
    assert are_copies(original, np.repeat(original, 20))
    assert not are_copies(original, original[:0])
