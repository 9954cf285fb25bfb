"""The frame store of a dataset: its geometry, and one store for all official splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.videos import make_video

from distinit.pipeline.datasets.listing import list_dataset
from distinit.pipeline.datasets.splits import listed_paths
from distinit.pipeline.datasets.store import dataset_store, geometry_of
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import NullProgress
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.finetune import DatasetConfig
from distinit.schemas.frames import FrameGeometry


def test_geometry_follows_the_crop(tmp_path: Path, store: FrameStore) -> None:
    assert geometry_of(tmp_path / "none", 112) == FrameGeometry()
    assert geometry_of(tmp_path / "none", 224) == FrameGeometry(mode="short_edge", short_edge=256)
    assert geometry_of(store.root, 128) == FrameGeometry()
    with pytest.raises(FrameStoreError, match="smaller than the crop"):
        geometry_of(store.root, 129)


def write_videos(root: Path) -> None:
    for seed, name in enumerate(("a", "b", "c", "d")):
        for offset, label in enumerate(("jump", "wave")):
            make_video(root / label / f"{name}.mp4", frames=4, seed=2 * seed + offset)


def test_all_splits_of_a_dataset_share_one_store(tmp_path: Path) -> None:
    """Split 2 trains on a video that split 1 does not use; both open the same store."""
    root, lists = tmp_path / "videos", tmp_path / "lists"
    write_videos(root)
    lists.mkdir()
    text = {1: "a.mp4 1\nb.mp4 2\nc.mp4 0\ngone.mp4 0\n", 2: "a.mp4 0\nb.mp4 2\nc.mp4 1\n"}
    for split, lines in text.items():
        for label in ("jump", "wave"):
            (lists / f"{label}_test_split{split}.txt").write_text(lines)
    frames, listed = tmp_path / "frames", listed_paths(lists)
    stores = []
    for split in (1, 2):
        record = list_dataset(DatasetConfig(root=str(root), splits=str(lists), split=split))
        store = dataset_store(frames, root, record, 112, NullProgress(), listed=listed)
        stores.append((store.manifest, set(store.by_digest)))
        assert {video.digest for video in record.videos} <= set(store.by_digest)
    assert stores[0] == stores[1]
    assert len(stores[0][1]) == 6  # without d, which no split lists, and gone, which is missing


def test_a_store_without_some_videos_of_the_dataset_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    write_videos(root)
    records = []
    for train in ("a", "c"):
        rows = [
            f"{label}/{video}.mp4,{label},{subset}"
            for label in ("jump", "wave")
            for video, subset in ((train, "train"), ("b", "test"))
        ]
        (tmp_path / f"{train}.csv").write_text("\n".join(["path,label,split", *rows]))
        config = DatasetConfig(root=str(root), splits=str(tmp_path / f"{train}.csv"))
        records.append(list_dataset(config))
    dataset_store(tmp_path / "frames", root, records[0], 112, NullProgress())
    with pytest.raises(FrameStoreError, match="lacks 2 of 4 videos"):
        dataset_store(tmp_path / "frames", root, records[1], 112, NullProgress())
