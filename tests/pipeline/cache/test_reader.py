"""Targets by identity; what is not there is an error, never a zero."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import caches
from hypothesis import given
from hypothesis import strategies as st
from zarr.errors import ChunkNotFoundError

from distinit.pipeline.cache import TargetCache
from distinit.pipeline.cache.arrays import shard_bytes
from distinit.pipeline.cache.confidence import confidence_of
from distinit.pipeline.cache.encoding import array_specs
from distinit.schemas.errors import CacheCorruptError, CacheError


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def cache(cache_root: Path) -> TargetCache:
    return TargetCache.open(cache_root)


def test_every_stored_row_is_what_the_teacher_said(
    cache: TargetCache, corpus: Any, teachers: list[Any]
) -> None:
    for name, frames in corpus.frames.items():
        if name == "bad":
            continue
        video_id, index_N = corpus.id_of(name), np.arange(frames)
        rows_N = cache.index.rows_of(video_id, index_N)
        for teacher in teachers:
            said_NC = caches.logits_of(video_id, teacher, index_N)
            targets = cache.targets(teacher.id)
            found_NC = targets.logits(rows_N)
            assert found_NC.dtype == np.float32
            if teacher.encoding == "float16":
                assert np.array_equal(found_NC, said_NC.astype(np.float16).astype(np.float32))
            else:
                half_step = np.ptp(said_NC, axis=1).max() / 255 / 2
                assert np.abs(found_NC - said_NC).max() <= half_step * 1.001
            entropy_N = targets.entropy_nats[rows_N]
            assert np.array_equal(entropy_N, confidence_of(said_NC).entropy_nats)


def test_topk_and_features(tmp_path: Path, corpus: Any) -> None:
    topk = caches.make_teacher("k", classes=9, encoding="topk:3")
    features = caches.make_teacher("f", target="features")
    caches.run_all(tmp_path / "c", corpus, [topk, features])
    cache = TargetCache.open(tmp_path / "c")
    video_id, index_N = corpus.id_of("a"), np.arange(30)
    rows_N = cache.index.rows_of(video_id, index_N)
    said_NC = caches.logits_of(video_id, topk, index_N)
    found_NC = cache.targets("k").logits(rows_N)
    ids = np.argsort(-said_NC, axis=1)[:, :3]
    kept = [np.take_along_axis(x, ids, 1) for x in (found_NC, said_NC)]
    assert np.allclose(kept[0], kept[1], rtol=2**-10)
    mass_N = np.exp(found_NC.astype(np.float64)).sum(1)
    assert np.allclose(np.log(mass_N), confidence_of(said_NC).log_z, atol=5e-3)
    said_NC = caches.logits_of(video_id, features, index_N)
    assert np.array_equal(
        cache.targets("f").logits(rows_N), said_NC.astype(np.float16).astype(np.float32)
    )
    with pytest.raises(CacheError, match="no entropy"):
        _ = cache.targets("f").entropy_nats


def test_rows_keep_the_order_asked_for_and_may_repeat(cache: TargetCache, corpus: Any) -> None:
    forward = cache.index.rows_of(corpus.id_of("c"), range(150))
    targets = cache.targets("alpha")
    mixed = np.concatenate([forward[::-7], forward[:3], forward[:3]])
    position = {row: i for i, row in enumerate(forward.tolist())}
    everything = targets.logits(forward)
    assert np.array_equal(
        targets.logits(mixed), everything[[position[row] for row in mixed.tolist()]]
    )
    assert targets.logits(np.array([], np.int64)).shape == (0, 7)


def test_zarr_api_gives_the_same(cache: TargetCache, corpus: Any) -> None:
    rows_N = cache.index.rows_of(corpus.id_of("c"), range(150))
    stored = cache.zarr_array("alpha")[int(rows_N[0]) : int(rows_N[-1]) + 1]
    assert np.array_equal(stored.astype(np.float32), cache.targets("alpha").logits(rows_N))


def test_rows_of_frames_that_are_not_there(cache: TargetCache, corpus: Any) -> None:
    rows_N = cache.index.rows_of(corpus.id_of("d"), [0, 4, 5, -1, 10**12])
    assert (rows_N[:2] >= 0).all()
    assert rows_N[2:].tolist() == [-1, -1, -1]
    with pytest.raises(CacheError, match="no rows of video"):
        cache.index.rows_of("nothing", [0])
    assert cache.index.rows_of(corpus.id_of("bad"), [0, 1]).tolist() == [-1, -1]


@given(st.data())
def test_rows_of_a_batch_of_videos_are_the_rows_of_each(built_cache: Path, data: Any) -> None:
    index = TargetCache.open(built_cache).index
    frames = st.one_of(st.integers(-2, 200), st.just(10**12))
    number_N = np.array(data.draw(st.lists(st.integers(0, len(index.video_ids) - 1), max_size=6)))
    shape = (len(number_N), data.draw(st.integers(1, 5)))
    wanted_NT = np.array([[data.draw(frames) for _ in range(shape[1])] for _ in range(shape[0])])
    wanted_NT = wanted_NT.reshape(shape).astype(np.int64)
    found_NT = index.rows_of_videos(number_N.astype(np.int64), wanted_NT)
    expected = [
        index.rows_of(index.video_ids[number].decode(), frames_T).tolist()
        for number, frames_T in zip(number_N, wanted_NT, strict=True)
    ]
    assert found_NT.shape == shape
    assert found_NT.tolist() == expected


def test_numbers_of_videos_are_their_places(cache: TargetCache) -> None:
    ids = cache.index.video_ids
    assert cache.index.numbers_of(ids[::-1]).tolist() == list(range(len(ids)))[::-1]
    with pytest.raises(CacheError, match="no rows of video zzz"):
        cache.index.numbers_of(np.array([ids[0], b"zzz"]))


def test_index_columns(cache: TargetCache, corpus: Any) -> None:
    index = cache.index
    used = index.video_number >= 0
    assert used.sum() == 279
    assert index.video_ids.tolist() == [
        v.encode() for v in cache.videos.column("video_id").to_pylist()
    ]
    number = index.number_of(corpus.id_of("c"))
    assert (index.row_count[number], (index.video_number == number).sum()) == (150, 150)
    assert index.frame_index[index.video_number == number].tolist() == list(range(150))
    assert (index.frame_index[~used] == -1).all()
    entropy = cache.targets("alpha").entropy_nats
    assert np.array_equal(np.isnan(entropy), ~used)
    assert isinstance(entropy.base, np.memmap)  # and not a copy in memory


@pytest.mark.parametrize("row", [-1, 7 * 64, 10**12])
def test_a_row_outside_is_refused(cache: TargetCache, row: int) -> None:
    with pytest.raises(CacheError, match="outside"):
        cache.targets("alpha").logits(np.array([row]))


def test_an_unused_row_is_refused(cache: TargetCache) -> None:
    gap = int(np.flatnonzero(cache.index.video_number < 0)[0])
    with pytest.raises(CacheCorruptError, match="never wrote"):
        cache.targets("alpha").logits(np.array([gap]))


def test_a_missing_shard_is_an_error_on_both_ways(cache: TargetCache, corpus: Any) -> None:
    rows_N = cache.index.rows_of(corpus.id_of("c"), [0])
    unit = int(rows_N[0]) // 64
    cache.layout.shard("alpha", "logits", unit).unlink()
    with pytest.raises(CacheCorruptError, match="cannot be opened"):
        cache.targets("alpha").logits(rows_N)
    with pytest.raises(ChunkNotFoundError):
        _ = cache.zarr_array("alpha")[int(rows_N[0])]


def test_an_unknown_teacher_is_refused(cache: TargetCache) -> None:
    with pytest.raises(CacheError, match='no teacher "gamma"') as caught:
        cache.targets("gamma")
    assert "alpha" in str(caught.value)


def test_an_incomplete_cache_is_refused_unless_asked_for(
    tmp_path: Path, corpus: Any, teachers: list[Any]
) -> None:
    root = tmp_path / "c"
    with caches.open_writer(root, corpus, teachers) as writer:
        specs = writer.pending_groups()
        long = next(s for s in specs if s.group.units == 3)
        caches.run_task(long, corpus)
    with pytest.raises(CacheError, match="not complete"):
        TargetCache.open(root)
    cache = TargetCache.open(root, allow_incomplete=True)
    video_id = corpus.id_of("c")
    rows_N = cache.index.rows_of(video_id, range(150))
    said_NC = caches.logits_of(video_id, teachers[0], np.arange(150))
    assert np.allclose(cache.targets("alpha").logits(rows_N), said_NC, atol=0.01)
    assert cache.index.rows_of(corpus.id_of("a"), [0]).tolist() == [-1]
    later = np.array([(long.group.unit_range.stop % 7) * 64])
    with pytest.raises(CacheCorruptError, match="never wrote"):
        cache.targets("alpha").logits(later)


def test_rows_of_a_teacher_that_is_not_as_far(cache_root: Path, corpus: Any) -> None:
    with caches.open_writer(cache_root, corpus, [caches.make_teacher("gamma")]) as writer:
        caches.run_task(next(s for s in writer.pending_groups() if s.group.units == 3), corpus)
    cache = TargetCache.open(cache_root, allow_incomplete=True)
    ahead = cache.index.rows_of(corpus.id_of("a"), [0])
    assert cache.targets("alpha").logits(ahead).shape == (1, 7)
    with pytest.raises(CacheCorruptError, match="gamma never wrote"):
        cache.targets("gamma").logits(ahead)
    both = cache.index.rows_of(corpus.id_of("c"), [149])
    assert cache.targets("gamma").logits(both).shape == (1, 7)


def test_a_pickled_copy_reads_the_same(cache: TargetCache, corpus: Any) -> None:
    rows_N = cache.index.rows_of(corpus.id_of("c"), range(150))
    targets = cache.targets("beta")
    before = targets.logits(rows_N)
    copy = pickle.loads(pickle.dumps(targets))  # noqa: S301 - our own bytes
    assert np.array_equal(copy.logits(rows_N), before)
    assert np.array_equal(copy.entropy_nats, targets.entropy_nats, equal_nan=True)
    assert copy.video_ids == targets.video_ids
    assert np.array_equal(copy.of(corpus.id_of("c")).logits_NC, before)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_shares_the_open_shards(cache: TargetCache, corpus: Any) -> None:
    rows_N = cache.index.rows_of(corpus.id_of("c"), range(150))
    targets = cache.targets("alpha")
    before = targets.logits(rows_N)
    child = os.fork()
    if child == 0:
        same = all(np.array_equal(targets.logits(rows_N), before) for _ in range(50))
        os._exit(0 if same else 1)
    assert all(np.array_equal(targets.logits(rows_N), before) for _ in range(50))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_another_format_version_is_refused(cache_root: Path) -> None:
    edit_json(cache_root / "manifest.json", format_version=1)
    with pytest.raises(CacheCorruptError, match="format version"):
        TargetCache.open(cache_root)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"{}", b"\xff\xfe"])
def test_a_corrupt_manifest_is_refused(cache_root: Path, content: bytes) -> None:
    (cache_root / "manifest.json").write_bytes(content)
    with pytest.raises(CacheCorruptError, match="manifest"):
        TargetCache.open(cache_root)


def test_a_missing_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"manifest\.json does not exist"):
        TargetCache.open(tmp_path / "none")


def test_a_stale_teacher_is_refused(cache_root: Path) -> None:
    other = caches.make_teacher("alpha", weights="f" * 64)
    (cache_root / "teachers/alpha/teacher.json").write_text(other.model_dump_json())
    with pytest.raises(CacheCorruptError, match="alpha disagree"):
        TargetCache.open(cache_root)


@pytest.mark.parametrize("name", ["../alpha", "a/b", "/etc", "..", "a\\b"])
def test_teacher_ids_with_path_parts_are_refused(cache_root: Path, name: str) -> None:
    manifest = json.loads((cache_root / "manifest.json").read_text())
    manifest["teachers"][name] = manifest["teachers"].pop("alpha")
    (cache_root / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CacheCorruptError, match="folder name"):
        TargetCache.open(cache_root)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "frames/../../x", "other"])
def test_hostile_paths_in_commit_records_are_refused(cache_root: Path, name: str) -> None:
    path = cache_root / "teachers/alpha/commits/unit-00000.json"
    commit = json.loads(path.read_text())
    commit["files"][name] = {"size": 1, "sha256": "0" * 64}
    path.write_text(json.dumps(commit))
    with pytest.raises(CacheCorruptError, match=r"outside of its folder|does not list the files"):
        _ = TargetCache.open(cache_root).index


def test_an_array_of_another_shape_is_refused(cache_root: Path) -> None:
    edit_json(cache_root / "teachers/alpha/logits/zarr.json", shape=[64, 7])
    with pytest.raises(CacheCorruptError, match="does not describe the array"):
        TargetCache.open(cache_root)


def test_a_table_that_is_not_as_committed_is_refused(cache_root: Path) -> None:
    frames = cache_root / "frames"
    (frames / "unit-00001.parquet").write_bytes((frames / "unit-00002.parquet").read_bytes())
    with pytest.raises(CacheCorruptError, match=r"unit-00001\.parquet contradicts"):
        _ = TargetCache.open(cache_root).index


def test_a_damaged_index_is_built_again(cache_root: Path, corpus: Any) -> None:
    cache = TargetCache.open(cache_root)
    folder = cache.index.folder
    expected = cache.index.rows_of(corpus.id_of("a"), [0, 29])
    home = Path(os.environ["XDG_CACHE_HOME"])
    assert folder.parent == home / "distinit"
    for damage in ("flip", "cut", "delete", "json"):
        path = folder / ("index.json" if damage == "json" else "frame_index.npy")
        data = bytearray(path.read_bytes())
        data[-1] ^= 255
        path.unlink()
        if damage != "delete":
            path.write_bytes({"flip": data, "cut": data[:-9], "json": b"{"}[damage])
        again = TargetCache.open(cache_root)
        assert np.array_equal(again.index.rows_of(corpus.id_of("a"), [0, 29]), expected)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("claim", ["/precious", "../precious", "..", "A" * 64, "0" * 63])
def test_a_digest_that_is_none_is_refused_and_nothing_is_removed(
    cache_root: Path, tmp_path: Path, claim: str
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    manifest = json.loads((cache_root / "manifest.json").read_text())
    manifest["content_digest"] = claim.replace("/precious", str(precious), 1)
    (cache_root / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CacheCorruptError, match="content_digest"):
        TargetCache.open(cache_root)
    assert (precious / "thesis.tex").read_text() == "years of work"


def test_a_cache_that_claims_the_digest_of_another_does_not_share_its_index(
    cache_root: Path, tmp_path: Path, corpus: Any, teachers: list[Any]
) -> None:
    genuine = TargetCache.open(cache_root)
    forged_root = tmp_path / "forged"
    caches.run_all(forged_root, caches.Corpus(frames={"a": 30, "z": 99}), teachers)
    manifest = json.loads((forged_root / "manifest.json").read_text())
    manifest["content_digest"] = genuine.manifest.content_digest
    (forged_root / "manifest.json").write_text(json.dumps(manifest))
    forged = TargetCache.open(forged_root)
    assert forged.index.folder != genuine.index.folder
    assert genuine.index.rows_of(corpus.id_of("d"), [0, 4]).min() >= 0


def test_a_shard_of_gigabytes_is_not_handed_to_zarr(cache_root: Path) -> None:
    with (cache_root / "teachers/alpha/logits/c/0/0").open("r+b") as file:
        file.truncate(3 << 30)  # sparse: it takes no room
    with pytest.raises(CacheCorruptError, match="3221225472 bytes, at most"):
        TargetCache.open(cache_root).zarr_array("alpha")


def test_a_full_shard_has_the_size_that_is_allowed(tmp_path: Path) -> None:
    teacher = caches.make_teacher("alpha")
    caches.run_all(tmp_path / "c", caches.Corpus(frames={"a": caches.CAPACITY}), [teacher])
    spec = array_specs(teacher.encoding, teacher.identity.classes)[0]
    size = (tmp_path / "c/teachers/alpha/logits/c/0/0").stat().st_size
    assert size == shard_bytes(spec, caches.CAPACITY)
    assert len(TargetCache.open(tmp_path / "c").zarr_array("alpha")[:]) == caches.CAPACITY
