"""Planted flat, frozen and copied videos are found by their hashes; ordinary ones are not."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from distinit.pipeline.audit.pictures import PictureScan
from distinit.pipeline.audit.units import FrameRows

FRAMES = 20


def scanned(hashes: list[np.ndarray], units: int = 1) -> PictureScan:
    """A scan of videos with these hashes, read in a number of units."""
    counts = np.array([len(found) for found in hashes])
    first = np.cumsum(counts) - counts
    scan = PictureScan(first, counts)
    video_N = np.repeat(np.arange(len(hashes)), counts)
    frame_N = np.concatenate([np.arange(count) for count in counts])
    hash_N = np.concatenate(hashes).astype(np.uint64)
    for part in np.array_split(np.arange(len(video_N)), units):
        scan.add(FrameRows(part, video_N[part], frame_N[part], hash_N[part]))
    return scan


def moving(seed: int) -> np.ndarray:
    """Hashes of a video in which a few bits change from frame to frame."""
    rng = np.random.default_rng(seed)
    flips = np.uint64(1) << rng.integers(0, 64, FRAMES).astype(np.uint64)
    return np.bitwise_xor.accumulate(np.append(rng.integers(2**63).astype(np.uint64), flips[1:]))


def test_flat_and_frozen_videos_are_found() -> None:
    black = np.zeros(FRAMES)
    frozen = np.full(FRAMES, 0x1234_5678_9ABC_DEF0, np.uint64)
    for units in (1, 3):
        scan = scanned([moving(0), black, frozen, moving(1), frozen[:3]], units)
        assert scan.flat() == [1]
        # The pairs at the ends of units are not compared, so a few of them may be missing.
        assert scan.frozen() == ([2] if units == 1 else [])
    assert scan.copies() == [(2, 4)]


def test_copies_are_found_although_some_bits_differ() -> None:
    original = moving(5)
    copy = original ^ np.uint64(0b101)
    other = original ^ np.uint64(0xFF00)
    scan = scanned([original, moving(6), copy, other])
    assert scan.copies() == [(0, 2)]
    assert scan.frozen() == []


def test_scene_changes_are_listed_by_frame() -> None:
    one, two = moving(7)[:10], ~moving(7)[:10]
    scan = scanned([np.concatenate([one, two]), moving(8)])
    assert dict(scan.cuts) == {0: [10]}


def test_neighbours_with_the_same_picture_are_marked() -> None:
    rows = FrameRows(
        np.arange(4),
        np.array([0, 0, 0, 1]),
        np.array([0, 1, 2, 0]),
        np.array([7, 6, ~6, ~6], np.int64).astype(np.uint64),
    )
    scan = PictureScan(np.array([0, 3]), np.array([3, 1]))
    assert scan.add(rows).tolist() == [True, False, False]


def test_copies_are_those_that_a_comparison_of_all_pairs_finds() -> None:
    rng = np.random.default_rng(9)
    originals = [moving(seed) for seed in range(20)]
    flips = np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, (60, 2)).astype("u8"), axis=1)
    hashes = [originals[n] ^ flip for n, flip in zip(rng.integers(0, 20, 60), flips, strict=True)]
    middles = [5, 10, 15]
    expected = [
        (one, other)
        for one, other in combinations(range(60), 2)
        if (np.bitwise_count(hashes[one][middles] ^ hashes[other][middles]) <= 3).all()
    ]
    assert len(expected) == 11
    assert scanned(hashes).copies() == expected


def test_of_many_videos_alike_the_first_ones_are_compared() -> None:
    pairs = scanned([moving(1)] * 100).copies()
    assert pairs == list(combinations(range(64), 2))
    assert PictureScan(np.zeros(0, np.int64), np.zeros(0, np.int64)).copies() == []
