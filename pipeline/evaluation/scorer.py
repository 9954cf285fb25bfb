"""Runs a student on the clips of a protocol: in tasks of whole videos, on any number of workers.

Tasks and their batches do not depend on the number of workers, so neither do the scores.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.compute.device import resolve_device, set_arithmetic
from distinit.pipeline.datasets.scored import ScoredVideo
from distinit.pipeline.evaluation.clip_batches import (
    ProtocolBatch,
    clip_batches,
    protocol_clips,
    student_input,
)
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.students.heads import Student
from distinit.schemas.errors import ComputeError
from distinit.schemas.training import ClipConfig, Precision
from distinit.schemas.wording import reason_of

__all__ = [
    "LABELS_HEAD",
    "ClipScores",
    "Scorer",
    "Scoring",
    "ScoringTask",
    "ScoringWorker",
    "WorkerBuilder",
    "plan_tasks",
]

LABELS_HEAD = "labels"
"""Name of the only head of a finetuned student."""

_BATCHES_PER_TASK = 16  # the last one may be partial; a task is what a dead worker has to repeat

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scoring:
    """Which clips are scored, and how."""

    clip: ClipConfig
    protocol: str
    batch_size: int
    """Clips per forward pass."""
    precision: Precision = "fp32"
    loader_threads: int = 0
    """Threads that decode frames, per worker."""


@dataclass(frozen=True, slots=True)
class ScoringTask:
    """Consecutive videos to score."""

    number: int
    videos: tuple[tuple[int, str], ...]
    """(index in the list of test videos, video id)"""
    clips: int
    """Number of their distinct clips."""


@dataclass(frozen=True, slots=True)
class ClipScores:
    """The logits of N distinct clips, in order of the videos and of their starts."""

    video_N: Ints
    """Index in the list of test videos."""
    start_N: Ints
    """First frame."""
    top_N: Ints
    """First row of the crop, pixels."""
    left_N: Ints
    """First column of the crop, pixels."""
    weight_N: Ints
    """How often the protocol counts the clip."""
    logits_NC: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """All clips of ``parts``."""
        names = ("video_N", "start_N", "top_N", "left_N", "weight_N", "logits_NC")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def plan_tasks(
    store: FrameStore, videos: Sequence[ScoredVideo], scoring: Scoring
) -> list[ScoringTask]:
    """Split the videos that could be decoded into tasks: each video is in exactly one.

    Raises ConfigError if the crop is larger than the frames.
    """
    tasks: list[ScoringTask] = []
    group: list[tuple[int, str]] = []
    clips = 0
    for index, video in enumerate(videos):
        if video.video_id is None:
            continue
        group.append((index, video.video_id))
        clips += len(protocol_clips(store, video.video_id, scoring.protocol, scoring.clip))
        if clips >= _BATCHES_PER_TASK * scoring.batch_size:
            tasks.append(ScoringTask(len(tasks), tuple(group), clips))
            group, clips = [], 0
    if group:
        tasks.append(ScoringTask(len(tasks), tuple(group), clips))
    return tasks


class Scorer:
    """A student on a device that scores tasks."""

    def __init__(
        self, student: Student, store: FrameStore, scoring: Scoring, device: torch.device
    ) -> None:
        """The student must be on the device already."""
        self._student, self._store = student, store
        self._scoring, self._device = scoring, device

    def score(self, task: ScoringTask) -> Iterator[ClipScores]:
        """Yield the scores of each batch. The student must be in evaluation mode.

        Raises FrameStoreError if frames are damaged, ComputeError if the GPU runs out of memory.
        """
        scoring = self._scoring
        set_arithmetic(self._device, scoring.precision)
        for batch in clip_batches(
            self._store,
            [video_id for _, video_id in task.videos],
            scoring.protocol,
            scoring.clip,
            batch_size=scoring.batch_size,
            loader_threads=scoring.loader_threads,
        ):
            yield self._scores(batch, task)

    def _scores(self, batch: ProtocolBatch, task: ScoringTask) -> ClipScores:
        try:
            logits_BC = self._logits(batch.pixels_BTCHW)
        except torch.OutOfMemoryError as error:
            raise ComputeError(
                "the GPU ran out of memory",
                found=reason_of(error),
                remedy="lower the batch size (evaluate: --set batch_size=N)",
            ) from error
        return ClipScores(
            np.array([task.videos[clip.video][0] for clip in batch.clips]),
            np.array([clip.start for clip in batch.clips]),
            np.array([clip.top for clip in batch.clips]),
            np.array([clip.left for clip in batch.clips]),
            np.array([clip.weight for clip in batch.clips]),
            logits_BC.float().cpu().numpy(),
        )

    @torch.inference_mode()
    def _logits(self, pixels_BTCHW: Tensor) -> Tensor:
        clip_BCTHW = student_input(pixels_BTCHW, self._scoring.clip, self._device)
        bf16 = self._scoring.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
            outputs: dict[str, Tensor] = self._student(clip_BCTHW)
        return outputs[LABELS_HEAD]


class ScoringWorker:
    """Scores tasks for an executor. Its notes are the numbers of clips of finished batches."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def run(
        self, task: ScoringTask, upcoming: Sequence[ScoringTask]
    ) -> Generator[int, None, ClipScores]:
        """See Worker. Raises as ``Scorer.score``."""
        parts = []
        for part in self._scorer.score(task):
            parts.append(part)
            yield len(part.video_N)
        return ClipScores.joined(parts)


@dataclass(frozen=True, slots=True)
class WorkerBuilder:
    """Builds a ScoringWorker where it is called: in this process, or on a Ray worker."""

    student: Student
    store: FrameStore
    scoring: Scoring
    device: str
    """auto, cpu, cuda, cuda:N"""
    cache_home: str | None = None
    """XDG_CACHE_HOME of the driver, so that workers find the indexes that it has derived."""

    def __call__(self) -> ScoringWorker:
        """Put the student on the device, in evaluation mode."""
        if self.cache_home is not None:
            os.environ["XDG_CACHE_HOME"] = self.cache_home
        device = resolve_device(self.device)
        return ScoringWorker(
            Scorer(self.student.to(device).eval(), self.store, self.scoring, device)
        )
