"""The frame store of a dataset fits its crop and has its videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distinit.pipeline.datasets.store import geometry_of, scored_videos, with_undecodable
from distinit.pipeline.evaluation.score import ScoredVideo
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.run import DatasetRecord


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    """Video ``id-a`` with a digest of letters a; ``id-b`` has failed."""
    writer = FrameStoreWriter(tmp_path / "store", FrameGeometry(), "0" * 64)
    with writer.open_unit(0) as unit:
        unit.append("id-a", "a" * 64, 0, np.zeros((2, 128, 171, 3), np.uint8), 10.0)
        unit.fail_video("id-b", "b" * 64, "b.mp4: truncated")
        unit.commit()
    writer.finalise([0])
    return FrameStore.open(tmp_path / "store")


def dataset(*digests: str) -> DatasetRecord:
    common = {"subset": "test", "size_bytes": 1, "mtime_ns": 1}
    videos = [{"path": f"{d}.mp4", "label": n, "digest": d[0] * 64} for n, d in enumerate(digests)]
    return DatasetRecord.model_validate(
        {
            "kind": "csv",
            "classes": [f"c{d}" for d in digests],
            "videos": [video | common for video in videos],
        }
    )


def test_geometry_follows_the_crop(tmp_path: Path, store: FrameStore) -> None:
    assert geometry_of(tmp_path / "none", 112) == FrameGeometry()
    assert geometry_of(tmp_path / "none", 224) == FrameGeometry(mode="short_edge", short_edge=256)
    assert geometry_of(store.root, 128) == FrameGeometry()
    with pytest.raises(FrameStoreError, match="smaller than the crop"):
        geometry_of(store.root, 129)


def test_a_failed_test_video_is_scored_without_frames(store: FrameStore) -> None:
    record = with_undecodable(dataset("aa", "bb"), store)
    assert record.undecodable == {"bb.mp4": "b.mp4: truncated"}
    assert scored_videos(record, store) == [
        ScoredVideo("aa.mp4", 0, "id-a"),
        ScoredVideo("bb.mp4", 1, None),
    ]


def test_a_test_video_that_the_store_never_saw_is_an_error(store: FrameStore) -> None:
    with pytest.raises(FrameStoreError, match=r"test video cc\.mp4 is not in the frame store"):
        scored_videos(dataset("aa", "cc"), store)
