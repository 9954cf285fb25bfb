"""Videos are matched by content; those that do not match are reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import sources

from distinit.pipeline.cache import tables
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.matching import VideoIds, match_videos
from distinit.pipeline.distillation.target_frames import TargetFrames
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.matching.mapping import read_mapping, write_mapping
from distinit.schemas.errors import CacheError, FrameStoreError, MatchError
from distinit.schemas.matching import MatchedVideo, MatchLimits
from distinit.schemas.run import LeftOut


def test_matched_videos_are_indexed_in_cache_and_store(stored: Path) -> None:
    cache, store = TargetCache.open(stored / "one"), FrameStore.open(stored / "frames")
    videos = match_videos(cache, store)
    names = sorted(set(sources.FRAMES) - {"bad"}, key=sources.video_id_of)
    assert list(videos.cache_ids) == [sources.video_id_of(name) for name in names]
    assert list(videos.store_ids) == [f"store-{name}" for name in names]
    assert cache.index.video_ids[videos.cache_number_V].tolist() == [
        video_id.encode() for video_id in videos.cache_ids
    ]
    assert videos.frame_count_V.tolist() == [sources.FRAMES[name] for name in names]
    assert videos.left_out.failed == 1


def test_videos_that_do_not_match_are_left_out_and_counted(stored: Path, tmp_path: Path) -> None:
    frames = {n: f for n, f in sources.FRAMES.items() if n not in ("bad", "d")}
    sources.write_frames(tmp_path, frames | {"c": frames["c"] - 1})
    videos = match_videos(TargetCache.open(stored / "one"), FrameStore.open(tmp_path))
    assert sorted(videos.store_ids) == ["store-a", "store-b", "store-short"]
    assert videos.left_out == LeftOut(
        failed=1,
        not_in_store=1,
        other_frame_count=1,
        examples=(
            "d.mp4 (not in the frame store)",
            "c.mp4 (another number of frames in the frame store)",
        ),
    )


def test_no_matching_video_is_an_error(stored: Path, tmp_path: Path) -> None:
    sources.write_frames(tmp_path, {"another": 3})
    cache = TargetCache.open(stored / "one")
    with pytest.raises(FrameStoreError, match="does not hold the videos") as caught:
        match_videos(cache, FrameStore.open(tmp_path))
    assert "b.mp4 (not in the frame store)" in str(caught.value.found)
    no_targets = TargetFrames(cache.index, 64, np.zeros(1, np.bool_))
    with pytest.raises(CacheError, match=r"no video of the cache .* has a target") as untargeted:
        match_videos(cache, FrameStore.open(stored / "frames"), no_targets)
    assert "(no frame with a target)" in str(untargeted.value.found)


def test_a_video_takes_16_bytes_and_no_python_object(stored: Path) -> None:
    cache, store = TargetCache.open(stored / "one"), FrameStore.open(stored / "frames")
    videos = match_videos(cache, store)
    columns = (videos.cache_ids.number_V, videos.store_ids.number_V, videos.frame_count_V)
    assert sum(column.itemsize for column in columns) == 16
    mapped = (cache.index.video_ids, store.id_column, store.frame_counts)
    assert [isinstance(column.base, np.memmap) for column in mapped] == [True] * 3


def test_ids_are_a_sequence_of_strings() -> None:
    ids = VideoIds(np.array([b"a", b"b", b"bc", b"d"]), np.array([0, 2, 3], np.int32))
    assert (len(ids), ids[1], list(ids[1:]), ids.index("d")) == (3, "bc", ["bc", "d"], 2)


def test_videos_are_matched_block_by_block(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, store = TargetCache.open(stored / "one"), FrameStore.open(stored / "frames")
    whole = match_videos(cache, store)
    monkeypatch.setattr(tables, "_BATCH_ROWS", 2)
    blocks = match_videos(cache, store)
    assert list(blocks.cache_ids) == list(whole.cache_ids)
    assert list(blocks.store_ids) == list(whole.store_ids)
    assert blocks.frame_count_V.tolist() == whole.frame_count_V.tolist()
    assert blocks.left_out.failed == whole.left_out.failed == 1


def test_a_mapping_says_which_copy_stands_for_a_video(stored: Path, tmp_path: Path) -> None:
    cache, store = TargetCache.open(stored / "one"), FrameStore.open(stored / "frames")
    whole = match_videos(cache, store)
    rows = {row["path"]: row for row in cache.videos.to_pylist()}

    def mapped(name: str, **values: object) -> MatchedVideo:
        row = rows[f"{name}.mp4"]
        known = {key: row[key] for key in ("video_id", "path", "digest", "frame_count")}
        return MatchedVideo.model_validate(known | values)

    shifted = mapped("a", kind="shifted", usable=False, reason="copy.mp4: shifted by 1 frame")
    absent = {"kind": "re-encoded", "usable": True, "copy_path": "b.mkv", "copy_digest": "9" * 64}
    digest = cache.manifest.corpus.digest
    videos = [shifted, mapped("b", copy_frame_count=sources.FRAMES["b"], **absent)]
    write_mapping(tmp_path / "mapping", videos, digest, MatchLimits())
    found = match_videos(cache, store, mapping=read_mapping(tmp_path / "mapping"))
    assert found.mapping_digest == read_mapping(tmp_path / "mapping").digest
    assert whole.mapping_digest == ""
    # The store has the owner's own file of a, which is right whatever the copies are.
    assert set(whole.store_ids) - set(found.store_ids) == {"store-b"}
    assert found.left_out.examples == ("b.mp4 (not in the frame store)",)

    other = shifted.model_copy(update={"digest": "8" * 64})
    write_mapping(tmp_path / "mapping", [other], digest, MatchLimits())
    with pytest.raises(MatchError, match="about another video"):
        match_videos(cache, store, mapping=read_mapping(tmp_path / "mapping"))
    write_mapping(tmp_path / "mapping", [shifted], "7" * 64, MatchLimits())
    with pytest.raises(MatchError, match="not for the cache"):
        match_videos(cache, store, mapping=read_mapping(tmp_path / "mapping"))


def test_a_refused_copy_is_named_if_the_store_lacks_the_video(stored: Path, tmp_path: Path) -> None:
    cache = TargetCache.open(stored / "one")
    frames = {n: f for n, f in sources.FRAMES.items() if n not in ("bad", "d")}
    sources.write_frames(tmp_path / "store", frames)
    (row,) = (row for row in cache.videos.to_pylist() if row["path"] == "d.mp4")
    known = {key: row[key] for key in ("video_id", "path", "digest", "frame_count")}
    values = {"kind": "shifted", "usable": False, "reason": "d.mkv: shifted by 1 frame"}
    video = MatchedVideo.model_validate(known | values)
    write_mapping(tmp_path / "mapping", [video], cache.manifest.corpus.digest, MatchLimits())
    mapping = read_mapping(tmp_path / "mapping")
    found = match_videos(cache, FrameStore.open(tmp_path / "store"), mapping=mapping)
    assert found.left_out == LeftOut(
        failed=1,
        refused_by_match=1,
        examples=("d.mp4  shifted  d.mkv: shifted by 1 frame",),
    )
