"""The audit of a cache: its configuration, and ``audit.json``, the statistics in the report."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.teacher import OutputReport, TeacherRecord
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
    sheet_frames: int = Field(24, ge=1, le=400, description="number of frames per contact sheet")
    top_classes: int = Field(15, ge=1, description="number of classes in the plot of top classes")
    table_rows: int = Field(
        20,
        ge=1,
        description="number of videos in each table: most confident, least confident, failed",
    )


class EntropyHistogram(Record):
    """Number of frames per bin of entropy; bin i lies between edges i and i + 1."""

    edges_nats: tuple[float, ...]
    frames: tuple[int, ...]


class KeptFraction(Record):
    """The frames that a threshold keeps: those with an entropy at or below it. Exact."""

    max_entropy_nats: float
    frames: int = Field(ge=0)
    fraction: float = Field(ge=0, le=1)


class QuantileThreshold(Record):
    """The threshold that keeps a share of the frames: the exact quantile of their entropies.

    All frames in the cache count alike, including those of videos that the corpus no longer
    contains. The ``keep_fraction`` of distillation is a share of clips, which are drawn evenly over
    the videos: its threshold differs if the confidence differs between short and long videos.
    """

    keep_fraction: float = Field(ge=0, le=1)
    max_entropy_nats: float


class ClassCount(Record):
    """The frames for which this class is the most probable one."""

    class_index: int = Field(ge=0)
    name: str
    frames: int = Field(ge=0)
    fraction: float = Field(ge=0, le=1)


class FrameSample(Record):
    """One frame and the confidence of the teacher for it."""

    video_id: str
    path: str = Field(description="path of the video, relative to the corpus")
    frame_index: int = Field(ge=0)
    entropy_nats: float
    top1_class: int = Field(ge=0)
    top1_name: str
    top1_probability: float = Field(ge=0, le=1)


class VideoEntropy(Record):
    """Mean entropy over the frames of one video."""

    video_id: str
    path: str
    frames: int = Field(ge=1, description="number of its frames in the cache")
    mean_entropy_nats: float


class ConfidenceAudit(Record):
    """The confidence of one teacher over the corpus (paper section 3)."""

    frames: int = Field(ge=0, description="frames of the corpus with a usable output")
    mean_entropy_nats: float
    quartiles_nats: tuple[float, float, float] = Field(description="exact quantiles")
    highest_possible_nats: float = Field(description="ln(classes)")
    mean_top1_probability: float = Field(ge=0, le=1)
    histogram: EntropyHistogram
    kept: tuple[KeptFraction, ...]
    thresholds: tuple[QuantileThreshold, ...]
    classes_seen: int = Field(
        ge=0, description="classes that are the most probable one for at least one frame"
    )
    top_classes: tuple[ClassCount, ...]
    most_confident_frames: tuple[FrameSample, ...] = Field(description="at most one per video")
    least_confident_frames: tuple[FrameSample, ...] = Field(description="at most one per video")
    most_confident_videos: tuple[VideoEntropy, ...]
    least_confident_videos: tuple[VideoEntropy, ...]


class TeacherAudit(Record):
    """One teacher of the cache: its record, and its confidence if it stores logits."""

    record: TeacherRecord
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

    video_id: str
    path: str
    error: str


class AuditResult(Record):
    """``audit.json``."""

    format: Literal["distinit-audit"] = "distinit-audit"
    cache: str
    content_digest: str
    videos: int = Field(ge=0, description="videos of the corpus, including failed ones")
    failed_videos: int = Field(ge=0)
    gone_videos: int = Field(
        0,
        ge=0,
        description="videos that the corpus no longer contains; "
        "only thresholds and answers include them",
    )
    frames: int = Field(ge=0, description="frames of the corpus in the cache")
    failures: tuple[FailureRow, ...] = Field(description="at most AuditConfig.table_rows of them")
    teachers: tuple[TeacherAudit, ...]
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
