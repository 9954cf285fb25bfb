"""Looks up the test videos of a dataset in its frame store."""

from __future__ import annotations

from dataclasses import dataclass

from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.run import DatasetRecord

__all__ = ["ScoredVideo", "scored_videos"]


@dataclass(frozen=True, slots=True)
class ScoredVideo:
    """A test video. One that could not be decoded has no ``video_id`` and counts as wrong."""

    path: str
    label: int
    video_id: str | None


def scored_videos(dataset: DatasetRecord, store: FrameStore) -> list[ScoredVideo]:
    """The test videos of ``dataset`` with their ids in ``store``.

    Raises FrameStoreError if ``store`` lacks one that could be decoded for training.
    """
    by_digest = store.by_digest
    for video in dataset.subset("test"):
        if video.digest not in by_digest and video.path not in dataset.undecodable:
            raise FrameStoreError(
                f"test video {video.path} is not in the frame store {store.root}",
                expected="the store that the run was trained and evaluated with",
                remedy="set --frames to that store, or build it again from the same videos",
            )
    return [
        ScoredVideo(video.path, video.label, by_digest.get(video.digest))
        for video in dataset.subset("test")
    ]
