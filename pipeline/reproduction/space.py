"""The disk space of a reproduction: measured where it exists, else estimated."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from distinit.pipeline.reproduction.expand import Reproduction
from distinit.pipeline.reproduction.step import Step
from distinit.pipeline.students.heads import new_student
from distinit.schemas.base import PLUGIN
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import DistInitError
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.frames import FlowConfig, FrameGeometry, FramesConfig
from distinit.schemas.training import StudentConfig

__all__ = ["HOW", "disk_space"]

HOW = "measured where it exists; else 2 bytes per class, .39 per pixel, 20 per weight of a run"

_JPEG_BYTES_PER_PIXEL = 8_500 / (128 * 171)
"""Measured on frames of 128 x 171 (decision 7)."""
_BYTES_PER_LOGIT = 2
"""In the default encoding, float16."""
_WEIGHT_BYTES = 4
_STORED_COPIES = 5
"""A finished run holds its student, and two checkpoints of weights and momentum."""


def disk_space(
    reproduction: Reproduction, frame_count: int | None, done: Collection[str]
) -> dict[str, int | None]:
    """What -> bytes, None where nothing is known yet.

    ``frame_count``: frames of the corpus, if they can be estimated. ``done``: finished steps.
    """
    steps = reproduction.steps
    sizes = {**_corpus_sizes(reproduction, frame_count, done), **_store_sizes(steps, done)}
    students = [
        config.student
        for step in steps.values()
        if isinstance(config := step.config, DistillConfig | FinetuneConfig)
    ]
    sizes["training runs"] = sum(_run_bytes(student) for student in students if student)
    return sizes


def _corpus_sizes(
    reproduction: Reproduction, frame_count: int | None, done: Collection[str]
) -> dict[str, int | None]:
    if "extract" not in reproduction.steps:
        return {}
    layout, scale = reproduction.layout, reproduction.scale
    targets, frames = "targets of the corpus", "frames of the corpus"
    if "extract" in done:
        return {targets: _folder_bytes(layout.cache), frames: _folder_bytes(layout.frames)}
    if frame_count is None:
        return {targets: None, frames: None}
    classes = sum(teacher.classes for teacher in reproduction.teachers.values())
    return {
        targets: frame_count * classes * _BYTES_PER_LOGIT,
        frames: _jpeg_bytes(frame_count, scale.geometry),
    }


def _store_sizes(steps: Mapping[str, Step], done: Collection[str]) -> dict[str, int | None]:
    """The other frame stores and flow stores."""
    return {
        name: _folder_bytes(Path(config.out)) if name in done else None
        for name, step in steps.items()
        if isinstance(config := step.config, FramesConfig | FlowConfig)
    }


def _jpeg_bytes(frame_count: int, geometry: FrameGeometry) -> int:
    """Bytes of stored frames; of videos of 4:3 if the geometry keeps the aspect ratio."""
    height, width = geometry.size_for(4, 3)
    return round(frame_count * height * width * _JPEG_BYTES_PER_PIXEL)


def _run_bytes(student: StudentConfig) -> int:
    """Bytes of a run directory, from the weights of its network; 0 for a plugin."""
    if student.name.startswith(PLUGIN):
        return 0
    try:
        with torch.device("meta"):
            network = new_student(student, {"labels": 1}, seed=0)
    except DistInitError:
        return 0
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters * _WEIGHT_BYTES * _STORED_COPIES


def _folder_bytes(folder: Path) -> int:
    """Bytes of all files below ``folder``; 0 if it does not exist."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
