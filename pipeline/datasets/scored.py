"""Looks up the test or val videos of a dataset in its frame store."""

from __future__ import annotations

from dataclasses import dataclass

from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.evaluation import ScoredSubset
from distinit.schemas.wording import counted

__all__ = ["ScoredVideo", "scored_videos", "scoring_notes"]


@dataclass(frozen=True, slots=True)
class ScoredVideo:
    """A test or val video. One that is not decodable has no ``video_id`` and counts as wrong."""

    path: str
    label: int
    video_id: str | None


def scored_videos(
    dataset: DatasetRecord, store: FrameStore, subset: ScoredSubset
) -> list[ScoredVideo]:
    """The videos of a subset of ``dataset`` with their ids in ``store``.

    Raises FrameStoreError if ``store`` lacks one that could be decoded for training.
    """
    by_digest = store.by_digest
    for video in dataset.subset(subset):
        if video.digest not in by_digest and video.path not in dataset.undecodable:
            raise FrameStoreError(
                f"{subset} video {video.path} is not in the frame store {store.root}",
                expected="the store that the run was trained and evaluated with",
                remedy="set --frames to that store, or build it again from the same videos",
            )
    return [
        ScoredVideo(video.path, video.label, by_digest.get(video.digest))
        for video in dataset.subset(subset)
    ]


def scoring_notes(dataset: DatasetRecord, eval_every: int | None) -> list[str]:
    """Lines of text: which videos a finetune run scores, and when; see FinetuneConfig."""
    final, watched = dataset.final_subset, dataset.watched_subset
    notes = []
    if eval_every is not None:
        videos = counted(len(dataset.subset(watched)), f"{watched} video")
        notes.append(f"evaluating after every {counted(eval_every, 'epoch')} on {videos}")
    elif watched != final:
        notes.append("the val videos are only scored with --eval-every and `evaluate --subset val`")
    if final == "val":
        notes.append("note: the dataset has no test videos: the result is that of its val videos")
    return notes
