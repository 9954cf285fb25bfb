"""The audit of a cache: its configuration, and ``audit.json``, the statistics in the report."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.output_reports import OutputReport
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.wording import counted, one_line

__all__ = [
    "AuditConfig",
    "AuditResult",
    "ClassCount",
    "ConfidenceAudit",
    "EntropyHistogram",
    "FailureRow",
    "FrameSample",
    "KeptFraction",
    "QuantileThreshold",
    "TeacherAudit",
    "VideoEntropy",
]


class AuditConfig(Record):
    """Configuration of `distinit audit`: a target cache -> a report."""

    cache: str = Field(description="folder of the target cache")
    out: str = Field(description="folder to write the report to")
    frames: str | None = Field(
        None, description="frame store for contact sheets; None: no contact sheets"
    )
    sheet_frames: int = Field(
        24,
        ge=1,
        le=400,
        description="number of frames per contact sheet",
        json_schema_extra={"unit": "frames"},
    )
    top_classes: int = Field(
        15,
        ge=1,
        description="number of classes in the plot of top classes",
        json_schema_extra={"unit": "classes"},
    )
    table_rows: int = Field(
        20,
        ge=1,
        description="number of videos in each table: most confident, least confident, failed",
        json_schema_extra={"unit": "videos"},
    )


class EntropyHistogram(Record):
    """Number of frames per bin of entropy; bin i lies between edges i and i + 1."""

    edges_nats: tuple[float, ...] = Field(
        description="edges of the bins, ascending, nats; one more than there are bins"
    )
    frames: tuple[int, ...] = Field(description="number of frames in each bin")


class KeptFraction(Record):
    """The frames that a threshold keeps: those with an entropy at or below it. Exact."""

    max_entropy_nats: float = Field(description="threshold: largest entropy that is kept, nats")
    frames: int = Field(ge=0, description="number of frames kept")
    fraction: float = Field(ge=0, le=1, description="share of the frames kept")


class QuantileThreshold(Record):
    """The threshold that keeps a share of the frames: the exact quantile of their entropies.

    All frames in the cache count alike, including those of videos that the corpus no longer
    contains. The ``keep_fraction`` of distillation is a share of clips, which are drawn evenly over
    the videos: its threshold differs if the confidence differs between short and long videos.
    """

    keep_fraction: float = Field(ge=0, le=1, description="share of the frames to keep")
    max_entropy_nats: float = Field(description="threshold that keeps them, nats")


class ClassCount(Record):
    """The frames for which this class is the most probable one."""

    class_index: int = Field(ge=0, description="index of the class, from 0")
    name: str = Field(description="label of the class, or `class N` without one")
    frames: int = Field(ge=0, description="number of these frames")
    fraction: float = Field(ge=0, le=1, description="share of the frames of the corpus")


class FrameSample(Record):
    """One frame and the confidence of the teacher for it."""

    video_id: str = Field(description="id of the video")
    path: str = Field(description="path of the video, relative to the corpus")
    frame_index: int = Field(
        ge=0, description="number of the frame in its video, from 0, in display order"
    )
    entropy_nats: float = Field(description="entropy of the teacher's output, nats")
    top1_class: int = Field(ge=0, description="index of the most probable class")
    top1_name: str = Field(description="label of that class, or `class N` without one")
    top1_probability: float = Field(ge=0, le=1, description="probability of that class")


class VideoEntropy(Record):
    """Mean entropy over the frames of one video."""

    video_id: str = Field(description="id of the video")
    path: str = Field(description="path of the video, relative to the corpus")
    frames: int = Field(ge=1, description="number of its frames in the cache")
    mean_entropy_nats: float = Field(description="mean entropy over these frames, nats")


class ConfidenceAudit(Record):
    """The confidence of one teacher over the corpus (paper section 3)."""

    frames: int = Field(ge=0, description="frames of the corpus with a usable output")
    mean_entropy_nats: float = Field(description="mean entropy over these frames, nats")
    quartiles_nats: tuple[float, float, float] = Field(description="exact quantiles")
    highest_possible_nats: float = Field(description="ln(classes)")
    mean_top1_probability: float = Field(
        ge=0, le=1, description="mean probability of the most probable class"
    )
    histogram: EntropyHistogram = Field(description="entropies of these frames")
    kept: tuple[KeptFraction, ...] = Field(
        description="what evenly spaced thresholds keep, in ascending order"
    )
    thresholds: tuple[QuantileThreshold, ...] = Field(
        description="thresholds that keep given shares of the frames"
    )
    classes_seen: int = Field(
        ge=0, description="classes that are the most probable one for at least one frame"
    )
    top_classes: tuple[ClassCount, ...] = Field(
        description="most frequent classes first; at most AuditConfig.top_classes"
    )
    most_confident_frames: tuple[FrameSample, ...] = Field(description="at most one per video")
    least_confident_frames: tuple[FrameSample, ...] = Field(description="at most one per video")
    most_confident_videos: tuple[VideoEntropy, ...] = Field(
        description="lowest mean entropy first; at most AuditConfig.table_rows"
    )
    least_confident_videos: tuple[VideoEntropy, ...] = Field(
        description="highest mean entropy first; at most AuditConfig.table_rows"
    )


class TeacherAudit(Record):
    """One teacher of the cache: its record, and its confidence if it stores logits."""

    record: TeacherRecord = Field(description="content of the teacher's teacher.json")
    confidence: ConfidenceAudit | None = Field(
        description="None for features, or without any frames"
    )
    answers: OutputReport | None = Field(
        None, description="None for features, or without any frames"
    )
    sheet_note: str | None = Field(
        None, description="why frames are missing from the contact sheets; None if none is missing"
    )


class FailureRow(Record):
    """A video that is not in the cache."""

    video_id: str = Field(description="id of the video")
    path: str = Field(description="path of the video, relative to the corpus")
    error: str = Field(description="why it failed")


class AuditResult(Record):
    """``audit.json``."""

    format: Literal["distinit-audit"] = Field(
        "distinit-audit", description="name of the record's format"
    )
    cache: str = Field(description="folder of the target cache, as configured")
    content_digest: str = Field(
        description="content digest of the cache; empty if it is incomplete"
    )
    videos: int = Field(ge=0, description="videos of the corpus, including failed ones")
    failed_videos: int = Field(ge=0, description="videos of the corpus that failed")
    gone_videos: int = Field(
        0,
        ge=0,
        description="videos that the corpus no longer contains; "
        "only thresholds and answers include them",
    )
    frames: int = Field(ge=0, description="frames of the corpus in the cache")
    failures: tuple[FailureRow, ...] = Field(description="at most AuditConfig.table_rows of them")
    teachers: tuple[TeacherAudit, ...] = Field(description="one entry per teacher of the cache")
    pictures: tuple[str, ...] = Field(description="names of the PNG files next to the report")
    report: str = Field(description="path of report.html")

    def summary(self) -> str:
        """The main statistics, as text for the terminal."""
        lines = [
            f"{counted(self.videos - self.failed_videos, 'video')}, "
            f"{counted(self.frames, 'frame')} ({counted(self.failed_videos, 'video')} failed)"
        ]
        if self.gone_videos:
            lines.append(
                f"{counted(self.gone_videos, 'video')} of earlier runs left out: "
                "no longer in the corpus"
            )
        for teacher in self.teachers:
            name = one_line(teacher.record.id)
            lines += ["", f"teacher {name}: {_summary_of(teacher.confidence)}"]
            if teacher.answers is not None:
                lines += [f"  warning: {one_line(text)}" for text in teacher.answers.warnings]
            if teacher.sheet_note is not None:
                lines.append(f"  note: {one_line(teacher.sheet_note)}")
        return "\n".join([*lines, "", f"report  {one_line(self.report)}"])


def _summary_of(confidence: ConfidenceAudit | None) -> str:
    if confidence is None:
        return "no entropy (features, or no frames)"
    quartiles = " / ".join(f"{value:.2f}" for value in confidence.quartiles_nats)
    kept = [
        f"  {row.keep_fraction:>4.0%} of frames have at most {row.max_entropy_nats:.3f} nats"
        for row in confidence.thresholds
    ]
    return "\n".join([f"entropy quartiles {quartiles} nats", *kept])
