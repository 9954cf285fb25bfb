"""Videos are found by a few of their frames, without comparing all pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from distinit.pipeline.matching import anchors
from distinit.pipeline.matching.anchors import AnchorIndex, anchors_of
from distinit.pipeline.matching.cache_hashes import CacheHashes, CacheVideo, KnownFrames

FRAMES, VIDEOS = 50, 300


@dataclass
class MadeUpHashes(CacheHashes):
    """The hashes of a cache without its files."""

    hash_VN: np.ndarray

    def of(self, video: CacheVideo) -> KnownFrames:
        hash_N = self.hash_VN[video.number]
        return KnownFrames(np.arange(len(hash_N)), hash_N, np.arange(len(hash_N)) / 25)


def index_of(hash_VN: np.ndarray) -> AnchorIndex:
    videos = [CacheVideo(n, f"{n}", f"{n}.mp4", "", FRAMES) for n in range(len(hash_VN))]
    return AnchorIndex(videos, MadeUpHashes(hash_VN))


def flipped(hash_N: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    return hash_N ^ np.uint64(sum(1 << bit for bit in bits))


def test_a_copy_is_found_among_many_videos_whatever_its_shift() -> None:
    hash_VN = np.random.default_rng(0).integers(0, 2**64, (VIDEOS, FRAMES), np.uint64)
    index = index_of(hash_VN)
    for number in (0, 17, VIDEOS - 1):
        copy_F = flipped(hash_VN[number, 9:], (0, 20, 40))  # three of the four bands differ
        assert index.candidates(copy_F, max_bits=4) == [number]
        assert index.candidates(copy_F, max_bits=2) == []
    assert index.candidates(np.zeros(3, np.uint64), max_bits=4) == []
    assert index.candidates(np.zeros(0, np.uint64), max_bits=4) == []


def test_the_video_with_the_most_common_frames_comes_first() -> None:
    hash_VN = np.random.default_rng(0).integers(0, 2**64, (20, FRAMES), np.uint64)
    for number in range(1, 12):  # videos that share ever fewer frames with video 0
        hash_VN[number, : FRAMES - 4 * number] = hash_VN[0, : FRAMES - 4 * number]
    found = index_of(hash_VN).candidates(hash_VN[0], max_bits=4)
    assert len(found) == 8
    assert found[0] == 0


def test_frames_without_structure_are_no_anchors_if_there_are_others() -> None:
    rng = np.random.default_rng(0)
    structured = rng.integers(0, 2**64, 5, np.uint64)
    black = np.zeros(40, np.uint64)
    assert set(anchors_of(np.concatenate([black, structured]))) == set(structured.tolist())
    assert anchors_of(black).tolist() == [0]
    assert anchors_of(np.zeros(0, np.uint64)).tolist() == []


def test_hashes_that_are_everywhere_do_not_take_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(anchors, "_MOST_PAIRS", 100)
    hash_VN = np.random.default_rng(0).integers(0, 2**64, (VIDEOS, FRAMES), np.uint64)
    hash_VN[:, :10] = hash_VN[0, 0]  # all videos begin with the same still
    copy_F = hash_VN[3]
    assert index_of(hash_VN).candidates(copy_F, max_bits=4)[0] == 3
