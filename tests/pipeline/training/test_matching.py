"""Videos are matched by content; what does not match is said."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from distinit.pipeline.cache import tables
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.training.matching import VideoIds, match_videos
from distinit.schemas.errors import FrameStoreError


def test_numbers_point_into_cache_and_store(stored: Path, toys: ModuleType) -> None:
    cache, store = TargetCache.open(stored / "one"), FrameStore.open(stored / "frames")
    videos = match_videos(cache, store)
    names = sorted(set(toys.FRAMES) - {"bad"}, key=toys.video_id_of)
    assert list(videos.cache_ids) == [toys.video_id_of(name) for name in names]
    assert list(videos.store_ids) == [f"store-{name}" for name in names]
    assert cache.index.video_ids[videos.cache_number_V].tolist() == [
        video_id.encode() for video_id in videos.cache_ids
    ]
    assert videos.frame_count_V.tolist() == [toys.FRAMES[name] for name in names]
    assert videos.failed == 1


def test_a_video_that_the_store_lacks(stored: Path, toys: ModuleType, tmp_path: Path) -> None:
    toys.write_frames(tmp_path, {"a": toys.FRAMES["a"]})
    with pytest.raises(FrameStoreError, match="does not hold the videos") as caught:
        match_videos(TargetCache.open(stored / "one"), FrameStore.open(tmp_path))
    assert caught.value.expected == "the 5 good videos of the cache, by content"
    assert str(caught.value.found).startswith("1 of them; absent: ")


def test_a_video_with_another_frame_count(stored: Path, toys: ModuleType, tmp_path: Path) -> None:
    frames = {n: f for n, f in toys.FRAMES.items() if n != "bad"}
    toys.write_frames(tmp_path, frames | {"c": frames["c"] - 1})
    with pytest.raises(FrameStoreError, match=r"disagree on c\.mp4") as caught:
        match_videos(TargetCache.open(stored / "one"), FrameStore.open(tmp_path))
    assert (caught.value.expected, caught.value.found) == ("20 frames", "19 frames")


def test_a_video_costs_16_bytes_and_no_object(stored: Path) -> None:
    cache, store = TargetCache.open(stored / "one"), FrameStore.open(stored / "frames")
    videos = match_videos(cache, store)
    columns = (videos.cache_ids.number_V, videos.store_ids.number_V, videos.frame_count_V)
    assert sum(column.itemsize for column in columns) == 16
    mapped = (cache.index.video_ids, store.video_ids, store.frame_counts)
    assert [isinstance(column.base, np.memmap) for column in mapped] == [True] * 3


def test_ids_are_a_sequence_of_strings() -> None:
    ids = VideoIds(np.array([b"a", b"b", b"bc", b"d"]), np.array([0, 2, 3], np.int32))
    assert (len(ids), ids[1], list(ids[1:]), ids.index("d")) == (3, "bc", ["bc", "d"], 2)


def test_videos_are_matched_block_by_block(
    stored: Path, toys: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, store = TargetCache.open(stored / "one"), FrameStore.open(stored / "frames")
    whole = match_videos(cache, store)
    monkeypatch.setattr(tables, "_BATCH_ROWS", 2)
    blocks = match_videos(cache, store)
    assert list(blocks.cache_ids) == list(whole.cache_ids)
    assert list(blocks.store_ids) == list(whole.store_ids)
    assert blocks.frame_count_V.tolist() == whole.frame_count_V.tolist()
    assert blocks.failed == whole.failed == 1
