"""The best shift of a copy against a video: index arithmetic, contrast, and what is undecidable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.matching.alignment import (
    NOT_ALIGNED,
    Alignment,
    align,
    at_times_of,
    evenly,
)

BITS = 4


def random_hashes(count: int, seed: int) -> np.ndarray:
    """Hashes of pictures that have nothing in common: about 32 bits differ."""
    return np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)


def noisy(hash_N: np.ndarray, seed: int, flips: int = 2) -> np.ndarray:
    """The same pictures in another encoding: up to ``flips`` bits differ."""
    rng = np.random.default_rng(seed)
    masks = [
        np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, flips).astype(np.uint64))
        for _ in hash_N
    ]
    return hash_N ^ np.array(masks, np.uint64)


@given(
    frames=st.integers(6, 60),
    shift=st.integers(-40, 40),
    length=st.integers(1, 80),
    stride=st.integers(1, 5),
    seed=st.integers(0, 100),
)
def test_a_shift_is_found_wherever_enough_frames_are_shared(
    frames: int, shift: int, length: int, stride: int, seed: int
) -> None:
    """Frame i + shift of the copy shows frame i; other frames of the copy show something else."""
    hash_N = random_hashes(frames, seed)
    copy_F = random_hashes(length, seed + 1000)
    shown_by_copy = {i + shift: i for i in range(frames) if 0 <= i + shift < length}
    for position, frame in shown_by_copy.items():
        copy_F[position] = hash_N[frame]
    index_K = np.arange(0, frames, stride)
    shared = sum(0 <= i + shift < length for i in index_K.tolist())
    compared = [sum(0 <= i + s < length for i in index_K.tolist()) for s in range(-300, 301)]
    found = align(index_K, hash_N[index_K], copy_F, BITS)
    if shared >= 3 and shared >= max(compared) / 2:
        assert found == Alignment(
            shift_frames=shift,
            agreeing_share=1.0,
            mean_bits=0.0,
            compared=shared,
            zero_share=found.zero_share if shift else 1.0,
            is_sure=found.is_sure,
            is_zero_excluded=found.is_zero_excluded if shift else False,
            part_shift=None,
        )


@pytest.mark.parametrize("shift", [-7, -1, 0, 1, 12])
def test_moving_pictures_give_a_sure_shift(shift: int) -> None:
    hash_N = random_hashes(80, 1)
    shown = noisy(hash_N, 2)
    copy_F = shown[-shift:] if shift < 0 else np.concatenate([random_hashes(shift, 3), shown])
    found = align(np.arange(80), hash_N, copy_F, BITS)
    assert (found.shift_frames, found.is_sure, found.is_zero_excluded) == (shift, True, shift != 0)
    assert (found.agreeing_share, found.compared) == (1.0, 80 - max(0, -shift))


def test_a_static_picture_is_undecidable() -> None:
    hash_N = np.full(50, 0x0F0F_0F0F_1234_5678, np.uint64)
    found = align(np.arange(50), hash_N, noisy(hash_N, 1), BITS)
    assert (found.is_sure, found.is_zero_excluded, found.part_shift) == (False, False, None)
    assert (found.agreeing_share, found.zero_share) == (1.0, 1.0)


def test_motion_that_repeats_itself_is_undecidable() -> None:
    hash_N = np.tile(random_hashes(5, 1), 12)
    found = align(np.arange(60), hash_N, hash_N, BITS)
    assert (found.shift_frames, found.is_sure, found.is_zero_excluded) == (0, False, False)


@pytest.mark.parametrize("step", [-1, 1])
def test_a_frame_that_is_missing_or_repeated_in_the_middle_is_noticed(step: int) -> None:
    base = random_hashes(1, 5)[0]
    grown = [base]
    for bit in np.random.default_rng(6).permutation(64)[:60]:  # a slow change, bit by bit
        grown.append(grown[-1] ^ (np.uint64(1) << np.uint64(bit)))
    hash_N = np.array(grown, np.uint64)
    numbers = np.arange(len(hash_N))
    shown = numbers if step == 0 else np.where(numbers < 30, numbers, numbers - step)
    copy_F = hash_N[np.clip(shown, 0, len(hash_N) - 1)]
    found = align(numbers, hash_N, copy_F, BITS)
    assert found.agreeing_share == 1.0
    assert not found.is_sure
    assert found.part_shift is not None
    assert abs(found.part_shift - found.shift_frames) == 1


def test_other_pictures_agree_in_no_frame() -> None:
    found = align(np.arange(40), random_hashes(40, 1), random_hashes(40, 2), BITS)
    assert found.agreeing_share == 0.0


def test_a_copy_without_common_frames_is_not_aligned() -> None:
    far = np.array([10_000, 10_001])
    assert align(far, random_hashes(2, 1), random_hashes(3, 2), BITS) == NOT_ALIGNED
    assert align(far[:0], random_hashes(0, 1), random_hashes(3, 2), BITS) == NOT_ALIGNED
    assert align(far, random_hashes(2, 1), random_hashes(0, 2), BITS) == NOT_ALIGNED


def test_long_videos_are_compared_by_evenly_spread_rows() -> None:
    hash_N = random_hashes(10_000, 1)
    found = align(np.arange(10_000), hash_N, hash_N[3:], BITS)
    assert (found.shift_frames, found.is_sure) == (-3, True)
    assert found.compared == 2047  # frame 0 is one of the 2048
    assert evenly(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly(3, 4).tolist() == [0, 1, 2]


@given(rate=st.integers(5, 60), copy_rate=st.integers(5, 60), seconds=st.integers(1, 4))
def test_frames_of_another_rate_are_found_by_their_times(
    rate: int, copy_rate: int, seconds: int
) -> None:
    """Frame j of the copy is displayed from j / copy_rate, frame k of the video from k / rate."""
    index_N = np.arange(rate * seconds)
    copy_seconds_F = 100 + np.arange(copy_rate * seconds) / copy_rate
    first_K, middle_K = at_times_of(index_N / rate, index_N, copy_seconds_F)
    last = copy_rate * seconds - 1
    for k, (first, middle) in enumerate(zip(first_K.tolist(), middle_K.tolist(), strict=True)):
        assert first / copy_rate >= (k - 0.06) / rate or first == last
        assert (first - 1) / copy_rate < (k - 0.04) / rate
        assert middle / copy_rate <= (k + 0.51) / rate
        assert (middle + 1) / copy_rate > (k + 0.49) / rate or middle == last


def test_times_that_do_not_increase_give_no_frames() -> None:
    zeros = np.zeros(5)
    assert at_times_of(zeros, np.arange(5), np.arange(5.0)) == []
    assert at_times_of(np.arange(5.0), np.arange(5), np.array([0.0, np.nan])) == []
    assert at_times_of(np.zeros(1), np.arange(1), np.arange(5.0)) == []
    assert at_times_of(np.array([0.0, np.inf]), np.arange(2), np.arange(5.0)) == []
    first_K, backwards = at_times_of(np.arange(4.0), np.arange(4), np.array([5.0, 4.0, 3.0, 8.0]))
    assert (first_K.tolist(), backwards.tolist()) == ([0, 3, 3, 3], [2, 2, 2, 3])
