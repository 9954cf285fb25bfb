"""The audit of a cache: its configuration, and ``audit.json`` with every figure of the report."""

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
    """Plots, tables and contact sheets of one cache."""

    cache: str = Field(description="folder of the target cache")
    out: str = Field(description="folder of the report: PNGs and report.html")
    frames: str | None = Field(
        None, description="frame store for contact sheets; None: no pictures"
    )
    sheet_frames: int = Field(24, ge=1, le=400, description="frames on one contact sheet")
    top_classes: int = Field(15, ge=1, description="classes in the table and plot")
    table_rows: int = Field(
        20, ge=1, description="videos in each table of most and least confident, and of failed"
    )


class EntropyHistogram(Record):
    """Counts of frames; bin i lies between edges i and i + 1."""

    edges_nats: tuple[float, ...]
    frames: tuple[int, ...]


class KeptFraction(Record):
    """What a threshold keeps: frames with entropy at or below it. Exact."""

    max_entropy_nats: float
    frames: int = Field(ge=0)
    fraction: float = Field(ge=0, le=1)


class QuantileThreshold(Record):
    """The threshold that keeps a share of the frames."""

    keep_fraction: float = Field(ge=0, le=1)
    max_entropy_nats: float


class ClassCount(Record):
    """Frames whose most probable class this is."""

    class_index: int = Field(ge=0)
    name: str
    frames: int = Field(ge=0)
    fraction: float = Field(ge=0, le=1)


class FrameSample(Record):
    """One frame and what the teacher said of it."""

    video_id: str
    path: str = Field(description="of the video, relative to the corpus")
    frame_index: int = Field(ge=0)
    entropy_nats: float
    top1_class: int = Field(ge=0)
    top1_name: str
    top1_probability: float = Field(ge=0, le=1)


class VideoEntropy(Record):
    """Mean over the rows of one video."""

    video_id: str
    path: str
    frames: int = Field(ge=1, description="rows of the cache")
    mean_entropy_nats: float


class ConfidenceAudit(Record):
    """How sure one teacher is of the corpus (paper section 3)."""

    frames: int = Field(ge=0, description="rows of the cache")
    mean_entropy_nats: float
    quartiles_nats: tuple[float, float, float]
    highest_possible_nats: float = Field(description="ln(classes)")
    mean_top1_probability: float = Field(ge=0, le=1)
    histogram: EntropyHistogram
    kept: tuple[KeptFraction, ...]
    thresholds: tuple[QuantileThreshold, ...]
    classes_seen: int = Field(ge=0, description="classes that are some frame's most probable")
    top_classes: tuple[ClassCount, ...]
    most_confident_frames: tuple[FrameSample, ...] = Field(description="one a video at most")
    least_confident_frames: tuple[FrameSample, ...] = Field(description="one a video at most")
    most_confident_videos: tuple[VideoEntropy, ...]
    least_confident_videos: tuple[VideoEntropy, ...]


class TeacherAudit(Record):
    """One teacher of the cache: who it is, and its confidence if it has any."""

    record: TeacherRecord
    confidence: ConfidenceAudit | None = Field(description="None: features or no frames")
    answers: OutputReport | None = Field(None, description="None: features or no frames")


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
    videos: int = Field(ge=0, description="of the corpus, failed ones included")
    failed_videos: int = Field(ge=0)
    gone_videos: int = Field(
        0, ge=0, description="further ones, which the corpus no longer has: in no figure"
    )
    frames: int = Field(ge=0, description="rows of the videos of the corpus")
    failures: tuple[FailureRow, ...] = Field(description="the first AuditConfig.table_rows")
    teachers: tuple[TeacherAudit, ...]
    pictures: tuple[str, ...] = Field(description="PNG files beside the report")
    report: str = Field(description="path of report.html")

    def summary(self) -> str:
        """A few lines for people; the page says the rest."""
        lines = [
            f"{counted(self.videos - self.failed_videos, 'video')}, "
            f"{counted(self.frames, 'frame')} ({counted(self.failed_videos, 'video')} failed)"
        ]
        if self.gone_videos:
            lines.append(f"{counted(self.gone_videos, 'video')} of earlier runs left out")
        for teacher in self.teachers:
            name = one_line(teacher.record.id)
            lines += ["", f"teacher {name}: {_summary_of(teacher.confidence)}"]
            if teacher.answers is not None:
                lines += [f"  warning: {one_line(text)}" for text in teacher.answers.warnings]
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
