"""What a training run leaves behind: ``student.json``, ``result.json``, metric lines."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.training import ClipConfig, StudentConfig

__all__ = ["EvaluationResult", "HeadRecord", "LoadReport", "RunRecord", "StudentRecord"]


class HeadRecord(Record):
    """One linear head of a student: ``heads.<name>.weight`` and ``.bias``."""

    name: str
    outputs: int = Field(ge=1)
    label_space: str
    teacher_fingerprint: str | None = None


class StudentRecord(Record):
    """``student.json`` beside ``student.safetensors``."""

    format: Literal["distinit-student"] = "distinit-student"
    format_version: int = 1
    student: StudentConfig
    clip: ClipConfig
    feature_dim: int = Field(ge=1, description="width of the pooled feature below the heads")
    heads: tuple[HeadRecord, ...]
    trained_by: Literal["distill", "finetune"]
    cache_digest: str | None = Field(None, description="content digest of the target cache")
    label_names: tuple[str, ...] = Field((), description="classes of a finetuned head")
    config: dict[str, Any] = Field(description="the whole configuration of the run")


class RunRecord(Record):
    """``run.json``: what a run directory belongs to."""

    format: Literal["distinit-run"] = "distinit-run"
    kind: Literal["distill", "finetune"]
    config_digest: str
    config: dict[str, Any]
    inputs: dict[str, str] = Field(description="digests of cache, frame store, dataset, init")
    versions: dict[str, str]


class LoadReport(Record):
    """Which tensors of a student file were used; nothing is left unsaid."""

    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...] = Field(description="in the model, not in the file (new head)")
    unused: tuple[str, ...] = Field(description="in the file, not in the model (old heads)")


class EvaluationResult(Record):
    """``result.json``: figures in percent."""

    protocol: str
    videos: int
    clips: int
    per_clip: float = Field(ge=0, le=100, description="top-1 of single clips, percent")
    top1: float = Field(ge=0, le=100, description="of video means, percent")
    top5: float = Field(ge=0, le=100, description="of video means, percent")
    classes: int
    confusion: tuple[tuple[int, ...], ...] = Field(description="[true][predicted] videos")
    failed_videos: tuple[str, ...] = Field(description="test videos that could not be decoded")
