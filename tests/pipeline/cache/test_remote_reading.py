"""Caches at URLs are read with the results of local ones: parts of shards, or whole ones."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.caches import CORPUS, make_teacher, run_all
from helpers.objects import s3_bucket
from helpers.progress import RecordingProgress
from helpers.web import WebFolder, serve

from distinit.pipeline.cache import remote_shards
from distinit.pipeline.cache.push import push_cache
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.transport import receive as receive_module
from distinit.schemas.errors import CacheCorruptError, CacheError, TransferError

SHARD = "teachers/alpha/logits/c/1/0"
TEACHERS = (
    make_teacher("alpha"),
    make_teacher("beta", classes=5, encoding="int8"),
    make_teacher("gamma", encoding="topk:3"),
)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive_module, "_WAITS_SECONDS", (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("local") / "cache"
    run_all(root, CORPUS, TEACHERS)
    return root


@pytest.fixture
def web(local: Path) -> Iterator[WebFolder]:
    for folder in serve(WebFolder(ranges=True)):
        folder.add(local, "/one")
        yield folder


def assert_same(found: TargetCache, local: Path) -> None:
    """Every target of every teacher has the same bits."""
    expected = TargetCache.open(local)
    assert found.manifest == expected.manifest
    assert found.video_ids == expected.video_ids
    assert found.videos.equals(expected.videos)
    for teacher in expected.teachers:
        theirs, ours = found.targets(teacher), expected.targets(teacher)
        for video_id in ours.video_ids:
            one, other = theirs.of(video_id), ours.of(video_id)
            np.testing.assert_array_equal(one.logits_NC, other.logits_NC)
            np.testing.assert_array_equal(one.entropy_nats, other.entropy_nats)
            np.testing.assert_array_equal(one.pts_seconds_N, other.pts_seconds_N)
            np.testing.assert_array_equal(one.frame_N, other.frame_N)
    state = found.read_state()
    assert found.checked_digest(state) == expected.manifest.content_digest


@pytest.mark.parametrize("keep_gib", [None, 1.0])
def test_a_web_server_gives_the_targets_of_the_folder(
    keep_gib: float | None, web: WebFolder, local: Path
) -> None:
    assert_same(TargetCache.open(f"{web.base}/one", keep_gib=keep_gib), local)


@pytest.mark.parametrize("keep_gib", [None, 1.0])
def test_s3_gives_the_targets_of_the_folder(keep_gib: float | None, local: Path) -> None:
    with s3_bucket("reading"):
        url = "s3://reading/one"
        progress = RecordingProgress()
        push_cache(local, url, replace=False, workers=4, progress=progress)
        assert_same(TargetCache.open(url, keep_gib=keep_gib), local)


def test_only_the_chunks_that_are_needed_are_read(web: WebFolder) -> None:
    targets = TargetCache.open(f"{web.base}/one").targets("alpha")
    web.gets.clear()
    web.sent.clear()
    video_id = CORPUS.id_of("c")
    targets.of(video_id, [70])
    (path,) = web.gets
    index_bytes, chunk_bytes = 4 * 16 + 4, 16 * 7 * 2 + 4
    assert web.sent[path] == 1 + index_bytes + chunk_bytes  # one byte tells that ranges are sent
    assert web.gets[path] == 3
    targets.of(video_id, [70, 71])
    assert web.gets[path] == 3, "the chunk is kept in memory"
    targets.of(video_id, range(64, 128))
    assert web.sent[path] <= 1 + index_bytes + 5 * chunk_bytes
    assert web.gets[path] == 4, "neighbouring chunks are one request"


def test_records_and_tables_are_received_once(web: WebFolder, local: Path) -> None:
    TargetCache.open(f"{web.base}/one").targets("alpha").of(CORPUS.id_of("a"))
    web.gets.clear()
    progress = RecordingProgress()
    again = TargetCache.open(f"{web.base}/one", progress=progress)
    assert again.targets("alpha").entropy_nats.shape == (7 * 64,)
    assert {path.rpartition("/")[2] for path in web.gets} == {
        "manifest.json",
        "manifest-sha256.txt",
        "copy.json",
    }
    assert progress.started == []
    assert not list(again.layout.root.glob("teachers/*/logits/c/*/0"))


def test_whole_shards_are_kept_within_their_limit(web: WebFolder, local: Path) -> None:
    shard = (local / SHARD).stat().st_size
    cache = TargetCache.open(f"{web.base}/one", keep_gib=2.5 * shard / 2**30)
    targets = cache.targets("alpha")
    for _ in range(2):
        for video_id in targets.video_ids:
            targets.of(video_id)
            kept = [path.stat().st_size for path in cache.layout.root.glob("teachers/*/*/c/*/0")]
            assert sum(kept) <= 2.5 * shard
    assert max(web.gets[path] for path in web.gets if "/alpha/logits/c/" in path) == 2
    larger = TargetCache.open(f"{web.base}/one", keep_gib=1.0)
    web.gets.clear()
    for _ in range(2):
        assert_same(larger, local)
    assert max(count for path, count in web.gets.items() if "/c/" in path) == 1


def test_a_server_without_ranges_sends_whole_shards(
    web: WebFolder, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_shards, "_DEFAULT_LIMIT_BYTES", 1 << 20)
    web.ranges = False
    cache = TargetCache.open(f"{web.base}/one")
    assert_same(cache, local)
    assert list(cache.layout.root.glob("teachers/alpha/logits/c/*/0"))


def test_copies_for_other_processes_read_too(web: WebFolder, local: Path) -> None:
    cache = copy.deepcopy(TargetCache.open(f"{web.base}/one"))  # as pickle does: by __getstate__
    assert_same(cache, local)


@pytest.mark.parametrize("keep_gib", [None, 1.0])
def test_a_flipped_bit_is_found(keep_gib: float | None, web: WebFolder) -> None:
    cache = TargetCache.open(f"{web.base}/one", keep_gib=keep_gib)
    path = f"/one/{SHARD}"
    data = bytearray(web.files[path])
    data[10] ^= 1
    web.files[path] = bytes(data)
    error = CacheCorruptError if keep_gib is None else TransferError
    with pytest.raises(error, match="logits/c/1/0"):
        cache.targets("alpha").logits(np.array([64]))


def test_connections_that_break_are_tried_again(web: WebFolder, local: Path) -> None:
    cache = TargetCache.open(f"{web.base}/one")
    for path in web.files:
        if "/c/" in path:
            web.torn[path] = 1
            web.statuses[path] = [503]
    assert_same(cache, local)


def test_a_shard_that_is_gone_is_an_error(web: WebFolder) -> None:
    cache = TargetCache.open(f"{web.base}/one")
    del web.files[f"/one/{SHARD}"]
    with pytest.raises(TransferError, match="cannot be transferred"):
        cache.targets("alpha").logits(np.array([64]))


def test_what_is_no_cache_and_what_zarr_would_read_is_refused(web: WebFolder) -> None:
    with pytest.raises(CacheError, match="is not a target cache"):
        TargetCache.open(f"{web.base}/nothing")
    cache = TargetCache.open(f"{web.base}/one")
    with pytest.raises(CacheError, match="zarr does not read a cache at a URL"):
        cache.zarr_array("alpha")


def test_a_server_that_sends_more_than_it_was_asked_for_fills_no_memory(web: WebFolder) -> None:
    cache = TargetCache.open(f"{web.base}/one", keep_gib=1.0)
    web.endless.add(f"/one/{SHARD}")
    with pytest.raises(TransferError, match="is larger than it may be"):
        cache.targets("alpha").logits(np.array([64]))
