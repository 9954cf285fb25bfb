"""The audit of a cache: its configuration, and ``audit.json``, the statistics in the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from distinit.schemas.audit_comparisons import CacheDrift, TeacherPairAudit
from distinit.schemas.audit_confident_half import ConfidentHalf
from distinit.schemas.audit_features import FeatureAudit
from distinit.schemas.audit_labels import LabelAudit
from distinit.schemas.base import Record
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.output_reports import OutputReport
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.wording import counted, first_names, one_line

__all__ = [
    "AuditConfig",
    "AuditResult",
    "AuditWarning",
    "ClassCount",
    "ConfidenceAudit",
    "EntropyHistogram",
    "FailureRow",
    "FrameSample",
    "KeptFraction",
    "OutlierFrame",
    "QuantileThreshold",
    "TeacherAudit",
    "ThresholdCurve",
    "VideoEntropy",
]


_WARNINGS_SHOWN = 5  # on the terminal


class AuditConfig(Record):
    """Configuration of `distinit audit`: a target cache -> a report."""

    cache: str = Field(description="folder of the target cache")
    out: str = Field(description="folder to write the report to")
    compare: tuple[str, ...] = Field(
        (), max_length=8, description="folders of other caches, to compare their densities"
    )
    labels: str | None = Field(
        None,
        description="CSV with the columns path and label, or `folders`: the label of a video is "
        "the name of its folder. None: no labels",
    )
    frames: str | None = Field(
        None, description="frame store for contact sheets; None: no contact sheets"
    )
    vocabulary: str | None = Field(
        None,
        description="vocabulary file, to show the confidence that it gives to stored features. "
        "None: the confidence of teachers that store logits",
    )
    teacher: str | None = Field(
        None,
        description="with vocabulary: id of the teacher whose features are used. None: the only "
        "teacher that stores features",
    )
    clip_frames: int = Field(
        8,
        ge=1,
        le=1024,
        description="length of the clips whose share a threshold keeps, as clip.frames of distill",
        json_schema_extra={"unit": "frames", "source": "paper: 8 and 32"},
    )
    pick: Literal["center", "random", "uniform", "k_random", "all"] = Field(
        "random",
        description="frames of a clip that make its target, as targets.pick of distill",
        json_schema_extra={"source": "paper: random"},
    )
    pick_frames: int = Field(
        1,
        ge=1,
        description="number of frames for pick uniform and k_random, as targets.k of distill",
        json_schema_extra={"unit": "frames"},
    )
    clips_per_second: float | None = Field(
        None,
        gt=0,
        description="measured speed of distillation, from which the page estimates the hours that "
        "a threshold saves; the page can change it. None: the page assumes 100 and says so",
        json_schema_extra={"unit": "clips per second", "source": "decision 53"},
    )
    fail_if: tuple[str, ...] = Field(
        (),
        description="conditions that a cache must not meet, such as kept(3.5) < 0.4; see "
        "docs/audit.md for the names",
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

    @model_validator(mode="after")
    def _vocabulary_of_one_cache(self) -> Self:
        if self.vocabulary is not None and self.compare:
            raise ValueError(
                "an audit with a vocabulary has one cache: compare caches that `distinit cache "
                "relabel` wrote"
            )
        if self.teacher is not None and self.vocabulary is None:
            raise ValueError("teacher needs a vocabulary: without one, all teachers are shown")
        return self


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


class ThresholdCurve(Record):
    """What each threshold keeps. Entry i is for the threshold ``(i + 1) * step_nats``; exact."""

    step_nats: float = Field(gt=0, description="distance of the thresholds, nats; a power of two")
    frames: tuple[int, ...] = Field(description="frames with an entropy up to the threshold")
    clips: tuple[float, ...] = Field(
        description="share of the clips with a target, as distillation draws them, whose target "
        "has an entropy up to the threshold; empty: there are no clips"
    )
    videos: tuple[int, ...] = Field(description="videos with at least one such frame")
    classes: tuple[int, ...] = Field(
        description="classes that are the most probable one for at least one such frame"
    )


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


class OutlierFrame(FrameSample):
    """A frame whose entropy is far from that of the other frames of its video."""

    others_mean_nats: float = Field(description="mean entropy of the video's other frames, nats")
    deviations: float = Field(
        ge=0, description="distance from this mean, in standard deviations of the other frames"
    )


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
    curve: ThresholdCurve = Field(description="what each threshold of a fine grid keeps")
    classes_seen: int = Field(
        ge=0, description="classes that are the most probable one for at least one frame"
    )
    top_classes: tuple[ClassCount, ...] = Field(
        description="most frequent classes first; at most AuditConfig.top_classes"
    )
    most_confident_frames: tuple[FrameSample, ...] = Field(description="at most one per video")
    least_confident_frames: tuple[FrameSample, ...] = Field(description="at most one per video")
    outlier_frames: tuple[OutlierFrame, ...] = Field(
        (), description="at most one per video, the furthest from its video first"
    )
    confident_half: ConfidentHalf | None = Field(
        None, description="classes of the more confident half; None: written by an older version"
    )
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
    features: FeatureAudit | None = Field(
        None, description="None for logits, or without any frames"
    )
    answers: OutputReport | None = Field(
        None, description="None for features, or without any frames"
    )
    labels: LabelAudit | None = Field(
        None, description="None without labels, or if none is in the label space"
    )
    sheet_note: str | None = Field(
        None, description="why frames are missing from the contact sheets; None if none is missing"
    )


class FailureRow(Record):
    """A video that is not in the cache."""

    video_id: str = Field(description="id of the video")
    path: str = Field(description="path of the video, relative to the corpus")
    error: str = Field(description="why it failed")


class AuditWarning(Record):
    """Something that a reviewer should look at before training on the cache."""

    kind: str = Field(description="short name of the kind of problem")
    text: str = Field(description="what was found")
    rule: str = Field(description="the threshold of the warning, and where it comes from")
    teacher: str | None = Field(None, description="id of the teacher; None: not about one")
    videos: tuple[str, ...] = Field((), description="paths of some of the videos, if there are any")


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
    damaged_videos: int = Field(
        0, ge=0, description="videos of the corpus that lack frames or have damaged ones"
    )
    gone_videos: int = Field(
        0,
        ge=0,
        description="videos that the corpus no longer contains; "
        "only thresholds and answers include them",
    )
    frames: int = Field(ge=0, description="frames of the corpus in the cache")
    failures: tuple[FailureRow, ...] = Field(description="at most AuditConfig.table_rows of them")
    teachers: tuple[TeacherAudit, ...] = Field(description="one entry per teacher of the cache")
    pairs: tuple[TeacherPairAudit, ...] = Field((), description="teachers side by side")
    drifts: tuple[CacheDrift, ...] = Field((), description="other caches beside this one")
    warnings: tuple[AuditWarning, ...] = Field((), description="the most important ones first")
    pictures: tuple[str, ...] = Field(description="names of the PNG files next to the report")
    tables: tuple[str, ...] = Field((), description="names of the Parquet files next to it")
    report: str = Field(description="path of report.html")
    failed_conditions: tuple[str, ...] = Field(
        (), description="conditions of AuditConfig.fail_if that are met, with what was found"
    )

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
            about = teacher.confidence if teacher.features is None else teacher.features
            lines += ["", f"teacher {name}: {_summary_of(about)}"]
            if teacher.answers is not None:
                lines += [f"  warning: {one_line(text)}" for text in teacher.answers.warnings]
            if teacher.sheet_note is not None:
                lines.append(f"  note: {one_line(teacher.sheet_note)}")
        told = [w for w in self.warnings if w.kind != "uninformative outputs"]  # above
        lines += ["", *_warning_lines(told)]
        failed = [f"failed: {one_line(text)}" for text in self.failed_conditions]
        return "\n".join([*lines, *failed, f"report  {one_line(self.report)}"])

    @property
    def exit_code(self) -> ExitCode:
        """FAILED if the cache meets one of the conditions that it must not meet."""
        return ExitCode.FAILED if self.failed_conditions else ExitCode.OK


def _warning_lines(warnings: Sequence[AuditWarning]) -> list[str]:
    """The first warnings, and how many more the page has."""
    lines = []
    for warning in warnings[:_WARNINGS_SHOWN]:
        of = "" if warning.teacher is None else f" ({warning.teacher})"
        videos = f": {first_names(warning.videos, 2)}" if warning.videos else ""
        lines.append(one_line(f"warning: {warning.kind}{of}: {warning.text}{videos}"))
    more = len(warnings) - _WARNINGS_SHOWN
    return [*lines, *([f"{counted(more, 'more warning')} in the report"] if more > 0 else [])]


def _summary_of(confidence: ConfidenceAudit | FeatureAudit | None) -> str:
    if confidence is None:
        return "no frames"
    if isinstance(confidence, FeatureAudit):
        return confidence.brief()
    quartiles = " / ".join(f"{value:.2f}" for value in confidence.quartiles_nats)
    kept = [
        f"  {row.keep_fraction:>4.0%} of frames have at most {row.max_entropy_nats:.3f} nats"
        for row in confidence.thresholds
    ]
    return "\n".join([f"entropy quartiles {quartiles} nats", *kept])
