"""Statistics of feature teachers in a cache: over all stored rows, however it was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import caches
from helpers.caches import CORPUS

from distinit.pipeline.cache import TargetCache
from distinit.pipeline.cache.layout import CacheLayout
from distinit.schemas.errors import CacheCorruptError, CacheError

FEATURES = caches.make_teacher("f", target="features")
LAYOUT = "teachers/f/statistics.safetensors"


def stored_rows(root: Path, name: str = "f") -> np.ndarray:
    targets = TargetCache.open(root).targets(name)
    return np.concatenate([targets.of(video_id).logits_NC for video_id in targets.video_ids])


@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_they_are_those_of_the_stored_rows(tmp_path: Path, encoding: str) -> None:
    record = caches.make_teacher("f", target="features", encoding=encoding)
    caches.run_all(tmp_path / "c", CORPUS, [record])
    found = TargetCache.open(tmp_path / "c").targets("f").feature_statistics
    rows_NC = stored_rows(tmp_path / "c").astype(np.float64)
    assert (found.vectors, rows_NC.shape) == (279, (279, 7))
    np.testing.assert_allclose(found.mean_C, rows_NC.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(found.covariance_CC, np.cov(rows_NC.T, bias=True), atol=1e-13)
    np.testing.assert_allclose(found.std_C, rows_NC.std(axis=0), atol=1e-13)
    assert found.has_covariance


def test_cells_of_a_grid_share_their_channels(tmp_path: Path) -> None:
    record = caches.make_teacher("f", classes=12, target="features", pool="grid:2")
    caches.run_all(tmp_path / "c", CORPUS, [record])
    found = TargetCache.open(tmp_path / "c").targets("f").feature_statistics
    vectors_NC = stored_rows(tmp_path / "c").reshape(-1, 3).astype(np.float64)
    assert (found.vectors, found.mean_C.shape) == (4 * 279, (3,))
    np.testing.assert_allclose(found.covariance_CC, np.cov(vectors_NC.T, bias=True), atol=1e-13)


@pytest.mark.parametrize("order", [list, reversed])
def test_any_order_of_the_work_gives_the_same_bytes(
    tmp_path: Path, order: Callable[..., list[caches.GroupSpec]]
) -> None:
    caches.run_all(tmp_path / "a", CORPUS, [FEATURES])
    caches.run_all(tmp_path / "b", CORPUS, [FEATURES], block=7, order=order)
    assert (tmp_path / "b" / LAYOUT).read_bytes() == (tmp_path / "a" / LAYOUT).read_bytes()


def test_videos_that_are_added_are_included(tmp_path: Path) -> None:
    first = caches.Corpus(frames={"a": 30, "e": 64})
    caches.run_all(tmp_path / "c", first, [FEATURES])
    assert TargetCache.open(tmp_path / "c").targets("f").feature_statistics.vectors == 94
    caches.run_all(tmp_path / "c", CORPUS, [FEATURES])
    found = TargetCache.open(tmp_path / "c").targets("f").feature_statistics
    assert found.vectors == 279
    rows_NC = stored_rows(tmp_path / "c").astype(np.float64)
    np.testing.assert_allclose(found.covariance_CC, np.cov(rows_NC.T, bias=True), atol=1e-13)
    kept = (tmp_path / "c" / LAYOUT).read_bytes()
    (tmp_path / "c" / LAYOUT).unlink()
    caches.run_all(tmp_path / "c", CORPUS, [FEATURES])
    assert (tmp_path / "c" / LAYOUT).read_bytes() == kept


def test_teachers_of_logits_have_none(cache_root: Path) -> None:
    assert not list(cache_root.glob("teachers/*/statistics.safetensors"))
    with pytest.raises(CacheError, match="teacher alpha stores logits"):
        _ = TargetCache.open(cache_root).targets("alpha").feature_statistics


def test_a_cache_that_lacks_them_names_the_command(tmp_path: Path) -> None:
    caches.run_all(tmp_path / "c", CORPUS, [FEATURES])
    (tmp_path / "c" / LAYOUT).unlink()
    with pytest.raises(CacheError, match="the cache has no statistics of teacher f") as raised:
        _ = TargetCache.open(tmp_path / "c").targets("f").feature_statistics
    assert f"distinit cache statistics {tmp_path / 'c'}" in str(raised.value.remedy)


def test_a_damaged_file_is_an_error_for_readers_and_written_again(tmp_path: Path) -> None:
    caches.run_all(tmp_path / "c", CORPUS, [FEATURES])
    path = tmp_path / "c" / LAYOUT
    kept = path.read_bytes()
    path.write_bytes(kept[:-1] + b"\0")
    with pytest.raises(CacheCorruptError, match=r"statistics\.safetensors is damaged"):
        _ = TargetCache.open(tmp_path / "c").targets("f").feature_statistics
    caches.run_all(tmp_path / "c", CORPUS, [FEATURES])
    assert path.read_bytes() == kept


def test_a_teacher_that_saw_no_frame_has_none(tmp_path: Path) -> None:
    corpus = caches.Corpus(frames={"bad": 3}, broken=frozenset({"bad"}))
    caches.run_all(tmp_path / "c", corpus, [FEATURES])
    with pytest.raises(CacheError, match="teacher f has no features in this cache"):
        _ = TargetCache.open(tmp_path / "c").targets("f").feature_statistics
    assert not CacheLayout(tmp_path / "c").unit_moments("f", 0).parent.exists()


def test_units_keep_their_moments_until_they_are_merged(tmp_path: Path) -> None:
    wide = caches.make_teacher("f", classes=4_096, target="features", pool="grid:64")
    assert (wide.identity.cells, wide.identity.channels) == (4_096, 1)
    layout = CacheLayout(tmp_path / "c")
    with caches.open_writer(tmp_path / "c", CORPUS, [wide]) as writer:
        specs = writer.pending_groups()
        for spec in specs[:2]:
            caches.run_task(spec, CORPUS)
    kept = sorted(path.name for path in layout.unit_moments("f", 0).parent.iterdir())
    assert kept == [f"unit-{u:05}.safetensors" for s in specs[:2] for u in s.group.unit_range]
    layout.unit_moments("f", 0).write_bytes(b"damaged: computed from the rows instead")
    caches.run_all(tmp_path / "c", CORPUS, [wide])
    assert not layout.unit_moments("f", 0).parent.exists()
    whole = (tmp_path / "c" / LAYOUT).read_bytes()
    (tmp_path / "c" / LAYOUT).unlink()
    caches.run_all(tmp_path / "c", CORPUS, [wide])  # all units from the stored rows
    assert (tmp_path / "c" / LAYOUT).read_bytes() == whole
