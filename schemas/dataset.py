"""The record of a labelled dataset: its classes, and its videos by content."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from distinit.schemas.base import Record, Sha256, sha256_of
from distinit.schemas.evaluation import ScoredSubset

__all__ = ["MAX_LABELS", "DatasetRecord", "DatasetVideo", "Subset"]

MAX_LABELS = 10_000
"""Most classes of a labelled dataset: the confusion matrix has the square of this number."""

Subset = Literal["train", "val", "test"]
"""What the videos of a labelled dataset are for."""


class DatasetVideo(Record):
    """One labelled video."""

    path: str = Field(
        description="posix, relative to the dataset's root; absolute for a file elsewhere"
    )
    label: int = Field(ge=0, description="index of its class")
    subset: Subset = Field(description="what the video is for")
    digest: Sha256 = Field(description="sha256 of the file's bytes")
    size_bytes: int = Field(description="size of the file, bytes")
    mtime_ns: int = Field(
        description="modification time of the file, nanoseconds since 1970: an unchanged file is "
        "not hashed again"
    )


class DatasetRecord(Record):
    """``dataset.json``: the labelled videos of a finetune run, identified by content."""

    kind: Literal["hmdb51", "ucf101", "csv", "folders"] = Field(
        description="what the splits were read from: official lists, a CSV, or subset folders"
    )
    classes: tuple[str, ...] = Field(
        max_length=MAX_LABELS, description="class names, in order of their index"
    )
    videos: tuple[DatasetVideo, ...] = Field(description="labelled videos of all subsets")
    undecodable: dict[str, str] = Field(
        default_factory=dict,
        description="path -> reason, for videos that are missing from the frame store",
    )

    @model_validator(mode="after")
    def _labels_have_names(self) -> Self:
        if any(video.label >= len(self.classes) for video in self.videos):
            raise ValueError("a video has a label without a class name")
        return self

    def subset(self, name: Subset) -> tuple[DatasetVideo, ...]:
        """The training videos, the val videos, or the test videos."""
        return tuple(video for video in self.videos if video.subset == name)

    @property
    def final_subset(self) -> ScoredSubset:
        """What the result of a run is measured on: test, or val without test videos."""
        return "test" if self.subset("test") else "val"

    @property
    def watched_subset(self) -> ScoredSubset:
        """What is scored during training: val, or test without val videos."""
        return "val" if self.subset("val") else "test"

    def content_digest(self) -> str:
        """sha256 over classes, labels, subsets and the bytes of the videos."""
        rows = [[v.path, v.label, v.subset, v.digest] for v in self.videos]
        return sha256_of([self.classes, rows])
