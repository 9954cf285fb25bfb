"""Finetuning as a training task: clips of labelled videos, cross entropy over their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from distinit.pipeline.evaluation.score import LABELS_HEAD
from distinit.pipeline.finetuning.init import Init
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.clips import read_clips
from distinit.pipeline.training.metrics import MetricLine
from distinit.pipeline.training.sampling import ClipSampler
from distinit.pipeline.training.task import ClipBatch, TrainingSettings
from distinit.pipeline.training.workload import clips_of_epoch

__all__ = ["FinetuneTask", "TrainVideos"]


@dataclass(frozen=True, slots=True)
class TrainVideos:
    """The training videos: their frames and their classes."""

    store: FrameStore
    video_ids: Sequence[str]
    labels: Sequence[int]
    """Class index of each video."""
    classes: int
    """Number of classes."""


class FinetuneTask:
    """Cross entropy over the classes of random clips (paper section 4)."""

    def __init__(
        self,
        init: Init,
        videos: TrainVideos,
        settings: TrainingSettings,
        *,
        head_only: bool,
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        """The keyword arguments are those of FinetuneConfig; ``head_only``: ``train_layers``."""
        self._init = init
        self._videos = videos
        self._settings = settings
        self._head_only = head_only
        self._label_smoothing = label_smoothing
        self._dropout = dropout
        frame_counts = [videos.store.videos[video_id].frame_count for video_id in videos.video_ids]
        clips = clips_of_epoch(settings.optimizer, settings.runtime, len(frame_counts))
        self._sampler = ClipSampler(frame_counts, settings.clip, clips, settings.runtime.seed)
        self._label_V = np.asarray(videos.labels, np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = partial(
            FinetuneTask,
            head_only=self._head_only,
            label_smoothing=self._label_smoothing,
            dropout=self._dropout,
        )
        return rebuild, (self._init.with_absolute_source(), self._videos, self._settings)

    def build(self) -> Student:
        """See TrainingTask."""
        seed = self._settings.runtime.seed
        student, _ = self._init.build(self._videos.classes, seed, head_only=self._head_only)
        student.dropout = self._dropout
        return student

    @property
    def skips(self) -> bool:
        """See TrainingTask."""
        return False

    def order(self, epoch: int) -> NDArray[np.int64]:
        """See TrainingTask."""
        return self._sampler.order(epoch)

    def keeps(self, epoch: int, samples_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See TrainingTask."""
        return np.ones(len(samples_N), np.bool_)

    def load(self, epoch: int, samples_B: NDArray[np.int64]) -> ClipBatch:
        """See TrainingTask."""
        choices = self._sampler.choices(epoch, samples_B)
        videos = self._videos
        crop = self._settings.clip.crop
        return ClipBatch(
            pixels=read_clips(videos.store, videos.video_ids, choices, crop),
            flip_B=torch.from_numpy(choices.flip_N),
            targets={LABELS_HEAD: torch.from_numpy(self._label_V[choices.video_N])},
        )

    def loss(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy with smoothed labels, and the accuracy in percent."""
        logits_BC, label_B = outputs[LABELS_HEAD], targets[LABELS_HEAD]
        accuracy = 100 * (logits_BC.argmax(dim=1) == label_B).float().mean()
        loss = cross_entropy(logits_BC, label_B, label_smoothing=self._label_smoothing)
        return loss, {"accuracy": accuracy}

    def check_progress(self, lines: Sequence[MetricLine]) -> None:
        """See TrainingTask; nothing to check, because every clip has a label."""
