"""Copies agree in nearly all of their frames; clips that only look alike do not."""

from __future__ import annotations

import numpy as np
import pytest

from distinit.pipeline.audit.duplicates import agreeing_share

BACKGROUND = np.uint64(0x1234_5678_9ABC_DEF0)


def clip(seed: int, moving: slice, frames: int = 100) -> np.ndarray:
    """Hashes of a still background, in front of which something moves for some frames."""
    hash_N = np.full(frames, BACKGROUND)
    rng = np.random.default_rng(seed)
    hash_N[moving] = rng.integers(2**63, size=frames).astype(np.uint64)[moving]
    return hash_N


def test_a_copy_agrees_although_bits_differ() -> None:
    original = clip(0, slice(None))
    assert agreeing_share(original, original ^ np.uint64(0b1111)) == 1
    assert agreeing_share(original, original ^ np.uint64(0b11111)) == 0


def test_clips_in_front_of_one_background_agree_only_where_nothing_moves() -> None:
    one, other = clip(1, slice(55, 70)), clip(2, slice(55, 70))
    assert one[[25, 50, 75]].tolist() == other[[25, 50, 75]].tolist()
    assert agreeing_share(one, other) == pytest.approx(0.85)


def test_frames_are_compared_at_the_same_relative_places() -> None:
    original = clip(3, slice(None))
    assert agreeing_share(original, np.repeat(original, 20)) == 1
    assert agreeing_share(original, original[:0]) == 0
