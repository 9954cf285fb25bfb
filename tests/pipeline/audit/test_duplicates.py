"""Copies agree in nearly all of their frames; clips that only look alike do not."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from helpers import caches

from distinit.pipeline.audit.duplicates import are_copies, duplicates
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.reader import TargetCache

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


@pytest.mark.parametrize("unit_rows", [64, 4096])
def test_copies_in_a_cache_are_found_by_the_hashes_of_their_own_rows(
    unit_rows: int, tmp_path: Path
) -> None:
    """The shorter copy has every second frame, so other rows of the longer one are compared."""
    original, other = clip(7, slice(None)), clip(8, slice(None))
    hashes = {"a": original, "b": other, "c": original[::2], "d": original ^ np.uint64(3)}
    cache = write_hashes(tmp_path, hashes, unit_rows)
    ids = cache.videos.column("video_id").to_pylist()
    names = [path.removesuffix(".mp4") for path in cache.videos.column("path").to_pylist()]
    pairs = list(combinations(range(4), 2))
    found = duplicates(cache, ids, pairs)
    copies = {frozenset(names[video] for video in pair) for pair in found.pairs}
    assert copies == {frozenset("ac"), frozenset("ad"), frozenset("cd")}
    assert found.left_out == 0
    fewer = duplicates(cache, ids, pairs, most=2)
    assert (list(fewer.pairs), fewer.left_out) == ([p for p in found.pairs if p in pairs[:2]], 4)
    assert list(duplicates(cache, ids, []).pairs) == []


def write_hashes(root: Path, hashes: Mapping[str, np.ndarray], unit_rows: int) -> TargetCache:
    """A cache of videos with these perceptual hashes."""
    (teacher, *_) = caches.TEACHERS
    corpus = caches.Corpus({name: len(hash_N) for name, hash_N in hashes.items()}, frozenset())
    with caches.open_writer(root, corpus, [teacher], unit_rows=unit_rows) as writer:
        for spec in writer.pending_groups():
            with GroupWriter(spec) as group:
                for video in spec.videos:
                    hash_N = hashes[corpus.name_of(video)]
                    index_N = np.arange(len(hash_N))
                    logits_NC = np.zeros((len(hash_N), teacher.identity.classes), np.float32)
                    group.add(video, index_N, index_N, "1/25", hash_N, {teacher.id: logits_NC})
                    group.finish_video(caches.outcome_of(video.video_id, len(hash_N)))
                group.commit()
        writer.finalise()
    return TargetCache.open(root)
