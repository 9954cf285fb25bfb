"""Estimates of the training that is left, and of its speed. Nothing is written."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

from distinit.pipeline.reproduction.step import Step
from distinit.pipeline.training.metrics import read_lines
from distinit.schemas.distill import DistillConfig
from distinit.schemas.finetune import FinetuneConfig

__all__ = [
    "measured_frames_per_second",
    "training_frames",
]


def training_frames(steps: Iterable[Step]) -> int | None:
    """Frames that the training of ``steps`` reads: clips times frames per clip.

    None if the clips of some step depend on its number of videos.
    """
    total = 0
    for step in steps:
        config = step.config
        if isinstance(config, DistillConfig | FinetuneConfig):
            if step.clips is None:
                return None
            total += step.clips * config.clip.frames
    return total


def measured_frames_per_second(finished: Iterable[Step]) -> float | None:
    """Median training speed of finished runs, from their metric lines; None without any."""
    rates = []
    for step in finished:
        config = step.config
        if isinstance(config, DistillConfig | FinetuneConfig):
            lines = read_lines(Path(config.out) / "metrics.jsonl")
            found = [line["clips_per_second"] for line in lines if "clips_per_second" in line]
            if found:
                rates.append(statistics.median(found) * config.clip.frames)
    return statistics.median(rates) if rates else None
