"""Every test video of a dataset is scored; those that could not be decoded have no frames."""

from __future__ import annotations

import pytest

from distinit.pipeline.datasets.scored import ScoredVideo, scored_videos
from distinit.pipeline.datasets.store import with_undecodable
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.errors import FrameStoreError


def dataset(*digests: str) -> DatasetRecord:
    """One test video per digest, each with its own class."""
    common = {"subset": "test", "size_bytes": 1, "mtime_ns": 1}
    videos = [{"path": f"{d}.mp4", "label": n, "digest": d[0] * 64} for n, d in enumerate(digests)]
    return DatasetRecord.model_validate(
        {
            "kind": "csv",
            "classes": [f"c{d}" for d in digests],
            "videos": [video | common for video in videos],
        }
    )


def test_a_video_that_could_not_be_decoded_is_scored_without_frames(store: FrameStore) -> None:
    record = with_undecodable(dataset("aa", "bb"), store)
    assert record.undecodable == {"bb.mp4": "b.mp4: truncated"}
    assert scored_videos(record, store, "test") == [
        ScoredVideo("aa.mp4", 0, "id-a"),
        ScoredVideo("bb.mp4", 1, None),
    ]


def test_a_test_video_that_is_missing_from_the_store_is_an_error(store: FrameStore) -> None:
    with pytest.raises(FrameStoreError, match=r"test video cc\.mp4 is not in the frame store"):
        scored_videos(dataset("aa", "cc"), store, "test")
