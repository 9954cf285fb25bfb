"""Targets by video and frame: what has no target is an error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import caches, sources

from distinit.pipeline.cache import TargetCache
from distinit.pipeline.cache.confidence import confidence_of
from distinit.schemas.errors import CacheCorruptError, CacheError


@pytest.fixture
def cache(cache_root: Path) -> TargetCache:
    return TargetCache.open(cache_root)


def test_all_targets_of_each_video(cache: TargetCache, corpus: Any, teachers: list[Any]) -> None:
    names = sorted(set(corpus.frames) - {"bad"}, key=corpus.id_of)
    assert cache.video_ids == tuple(corpus.id_of(name) for name in names)
    targets = cache.targets("alpha")
    assert targets.video_ids == cache.video_ids
    for name in names:
        video_id, index_N = corpus.id_of(name), np.arange(corpus.frames[name])
        found = targets.of(video_id)
        said_NC = caches.logits_of(video_id, teachers[0], index_N)
        assert (found.video_id, found.teacher_id, len(found)) == (video_id, "alpha", len(index_N))
        assert found.frame_N.tolist() == index_N.tolist()
        assert found.logits_NC.dtype == np.float32
        assert np.array_equal(found.logits_NC, said_NC.astype(np.float16).astype(np.float32))
        assert np.array_equal(found.entropy_nats, confidence_of(said_NC).entropy_nats)
        assert found.pts_seconds_N == pytest.approx(index_N * 512 / 12_800)


def test_frames_come_in_the_requested_order(cache: TargetCache, corpus: Any) -> None:
    targets, video_id = cache.targets("beta"), corpus.id_of("c")  # over more than two units
    whole, some = targets.of(video_id), targets.of(video_id, [149, 3, 3, 70])
    assert some.frame_N.tolist() == [149, 3, 3, 70]
    assert np.array_equal(some.logits_NC, whole.logits_NC[[149, 3, 3, 70]])
    assert some.pts_seconds_N.tolist() == whole.pts_seconds_N[[149, 3, 3, 70]].tolist()
    assert some.logits_NC.shape == (4, 5)
    assert targets.of(video_id, []).logits_NC.shape == (0, 5)


def test_a_missing_frame_is_named(cache: TargetCache, corpus: Any) -> None:
    with pytest.raises(CacheError) as raised:
        cache.targets("alpha").of(corpus.id_of("a"), [0, 30, -1])
    assert raised.value.problem == f"video {corpus.id_of('a')} has no target for frames 30, -1"
    assert raised.value.expected == "0, 1, 2 .. 29 (30 frames)"


def test_frames_between_sampled_ones_have_no_target(tmp_path: Path, corpus: Any) -> None:
    sources.write_cache(tmp_path / "c", ("alpha",), every=8)
    targets = TargetCache.open(tmp_path / "c").targets("alpha")
    video_id = sources.video_id_of("c")
    assert targets.of(video_id).frame_N.tolist() == [0, 8, 16]
    with pytest.raises(CacheError, match=f"video {video_id} has no target for frame 9") as raised:
        targets.of(video_id, [8, 9])
    assert raised.value.expected == "0, 8, 16"


def test_an_unknown_video_and_a_failed_one_are_named(cache: TargetCache, corpus: Any) -> None:
    targets = cache.targets("alpha")
    with pytest.raises(CacheError, match="no rows of video nothing"):
        targets.of("nothing")
    with pytest.raises(CacheError) as raised:
        targets.of(corpus.id_of("bad"))
    assert raised.value.problem == f"the cache has no targets for video {corpus.id_of('bad')}"
    assert raised.value.found == "it failed: made to fail"


def test_a_video_is_found_by_its_path(cache: TargetCache, corpus: Any) -> None:
    assert cache.video_id_of("c.mp4") == corpus.id_of("c")
    with pytest.raises(CacheError, match=r"the cache has no video other\.mp4"):
        cache.video_id_of("other.mp4")


def test_features_have_no_entropy(tmp_path: Path, corpus: Any) -> None:
    record = caches.make_teacher("f", target="features")
    caches.run_all(tmp_path / "c", corpus, [record])
    found = TargetCache.open(tmp_path / "c").targets("f").of(corpus.id_of("d"))
    with pytest.raises(CacheError, match="teacher f stores features, which have no entropy"):
        _ = found.entropy_nats
    assert found.entropy_nats_N is None
    assert found.logits_NC.shape == (5, 7)


def test_an_incomplete_teacher_lists_the_videos_that_it_has(tmp_path: Path, corpus: Any) -> None:
    gamma = caches.make_teacher("gamma")
    with caches.open_writer(tmp_path / "c", corpus, [gamma]) as writer:
        specs = writer.pending_groups()
        caches.run_task(specs[0], corpus)
        done = sorted(video.video_id for video in specs[0].videos)
    targets = TargetCache.open(tmp_path / "c", allow_incomplete=True).targets("gamma")
    assert list(targets.video_ids) == [v for v in done if v != corpus.id_of("bad")]
    assert len(done) < len(corpus.frames)
    missing = specs[-1].videos[0].video_id
    with pytest.raises(CacheError, match=f"no targets for video {missing}"):
        targets.of(missing)


def test_a_damaged_frames_table_is_an_error(cache_root: Path, corpus: Any) -> None:
    cache = TargetCache.open(cache_root)
    targets = cache.targets("alpha")
    assert cache.index.folder.is_dir()  # derived before the damage
    for path in cache_root.glob("frames/*.parquet"):
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(CacheCorruptError, match=r"unit-0000\d\.parquet contradicts"):
        targets.of(corpus.id_of("a"))
