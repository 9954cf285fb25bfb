"""The perceptual hash, compared with its definition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distinit.pipeline.video import hamming_distance, perceptual_hash


def by_definition(gray_HW: np.ndarray) -> int:
    value = 0
    for row in range(8):
        sums = [int(gray_HW[8 * row : 8 * row + 8, 8 * c : 8 * c + 8].sum()) for c in range(9)]
        for left, right in pairwise(sums):
            value = 2 * value + (right > left)
    return value


@given(arrays(np.uint8, (2, 64, 72)))
def test_the_hash_follows_its_definition(gray_NHW: np.ndarray) -> None:
    hash_N = perceptual_hash(gray_NHW)
    assert hash_N.dtype == np.uint64
    assert [int(value) for value in hash_N] == [by_definition(gray) for gray in gray_NHW]


def test_simple_pictures_have_known_hashes() -> None:
    flat = np.full((64, 72), 7, np.uint8)
    rising = np.broadcast_to(np.arange(72, dtype=np.uint8), (64, 72))
    first_pair = flat.copy()
    first_pair[0, 8] = 8  # one pixel of the second block of the first row
    hash_N = perceptual_hash(np.stack([flat, rising, rising[:, ::-1], first_pair]))
    assert [hex(value) for value in hash_N] == ["0x0", "0x" + "f" * 16, "0x0", "0x8" + "0" * 15]
    assert perceptual_hash(np.empty((0, 64, 72), np.uint8)).shape == (0,)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_the_hamming_distance_is_the_number_of_different_bits(a: int, b: int) -> None:
    pair = np.array([a], np.uint64), np.array([b], np.uint64)
    assert hamming_distance(*pair).tolist() == [(a ^ b).bit_count()]


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="must be"):
        perceptual_hash(np.zeros((1, 72, 64), np.uint8))
