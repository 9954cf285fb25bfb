"""The interface between the training loop and what it trains: samples, batches, a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.clips import StoredClips
from distinit.pipeline.training.collective import Collective
from distinit.pipeline.training.metrics import MetricLine
from distinit.schemas.evaluation import ScoredSubset
from distinit.schemas.training import ClipConfig, OptimizerConfig, RuntimeConfig

__all__ = ["ClipBatch", "Evaluator", "TrainingSettings", "TrainingTask"]


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """One shard of one step."""

    pixels: Tensor | StoredClips
    """uint8 [B, T, C, H, W], cropped, or the stored clips that decode to it."""
    flip_B: Tensor
    """bool"""
    targets: Mapping[str, Tensor]
    """Inputs of the task's loss by name; the first axis is B."""

    @property
    def pixels_BTCHW(self) -> Tensor:  # noqa: N802  axes, as everywhere
        """uint8, cropped, on the CPU; decoded at every use."""
        return self.pixels if isinstance(self.pixels, Tensor) else self.pixels.decode()


class TrainingTask(Protocol):
    """Implemented by distillation and by finetuning. Methods must not keep state."""

    def build(self) -> Student:
        """Build a student with its initial weights; every call returns the same weights."""

    @property
    def skips(self) -> bool:
        """Whether some samples may be left out, as ``keeps`` says."""

    def order(self, epoch: int) -> NDArray[np.int64]:
        """All samples of the epoch in training order; every call returns the same."""

    def keeps(self, epoch: int, samples_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether these samples are trained on: bool [N]. Called from a thread."""

    def load(self, epoch: int, samples_B: NDArray[np.int64]) -> ClipBatch:
        """Read these samples. Called from several threads at once."""

    def loss(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss over the batch (a scalar), and scalar metrics to log with it."""

    def check_progress(self, lines: Sequence[MetricLine]) -> None:
        """Raise a DistInitError if the metric lines so far show that training cannot succeed.

        Called at the end of every epoch.
        """


class Evaluator(Protocol):
    """Evaluates the student during training. Picklable; it must not change the training."""

    @property
    def every(self) -> int:
        """Number of epochs between evaluations."""

    @property
    def subset(self) -> ScoredSubset:
        """The videos that are scored."""

    def evaluate(
        self, student: Student, collective: Collective, device: torch.device
    ) -> dict[str, int | float]:
        """Metrics of the student, which is on ``device``. Called on every worker at once."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The parts of a configuration that every task shares."""

    clip: ClipConfig
    optimizer: OptimizerConfig
    runtime: RuntimeConfig

    @property
    def global_batch(self) -> int:
        """Clips in one optimiser step, over all shards."""
        return self.runtime.batch_size * self.runtime.shards
