"""A toy task that can be learned, and its run directories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distinit.pipeline.students.base import as_backbone
from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.run_dir import RunDirectory, open_run
from distinit.pipeline.training.task import ClipBatch, TrainingSettings
from distinit.schemas.training import ClipConfig, OptimizerConfig, RuntimeConfig, StudentConfig


class Net(nn.Module):
    """A convolution, an optional batch norm and a mean: a tiny network that trains fast."""

    feature_dim = 4

    def __init__(self, norm: bool, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, clip: Tensor) -> Tensor:
        return self.dropout(torch.tanh(self.norm(self.conv(clip)))).mean(dim=(2, 3, 4))


@dataclass
class ToyTask:
    """Samples 0 .. count-1 of three classes; their noise pixels depend only on the sample."""

    count: int = 16
    norm: bool = True
    dropout: float = 0.0
    dtype: torch.dtype = torch.float32
    seed: int = 0
    skipped: int = 0
    """Number of samples that each epoch leaves out, others in each epoch."""

    def build(self) -> Student:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Student(as_backbone(Net(self.norm, self.dropout)), {"toy": 3}).to(self.dtype)

    @property
    def skips(self) -> bool:
        return self.skipped > 0

    def order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng(epoch).permutation(self.count)

    def keeps(self, epoch: int, samples_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (samples_N + epoch) % self.count >= self.skipped

    def load(self, epoch: int, samples_B: NDArray[np.int64]) -> ClipBatch:
        pixels = [
            np.random.default_rng(s).integers(0, 256, (2, 3, 4, 4), np.uint8) for s in samples_B
        ]
        return ClipBatch(
            pixels=torch.from_numpy(np.stack(pixels)),
            flip_B=torch.from_numpy(samples_B % 2 == 0),
            targets={"label_B": torch.from_numpy(samples_B % 3)},
        )

    def loss(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits = outputs["toy"]
        loss = nn.functional.cross_entropy(logits, targets["label_B"])
        return loss, {"accuracy": (logits.argmax(1) == targets["label_B"]).double().mean()}

    def check_progress(self, lines: Sequence[Mapping[str, float]]) -> None:
        """Every sample has a label."""


def make_settings(
    optimizer: Mapping[str, Any] | None = None, runtime: Mapping[str, Any] | None = None
) -> TrainingSettings:
    return TrainingSettings(
        clip=ClipConfig(frames=2, crop=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        optimizer=OptimizerConfig.model_validate(
            {"learning_rate": 0.1, "epochs": 3, "clips_per_epoch": None, **(optimizer or {})}
        ),
        runtime=RuntimeConfig.model_validate(
            {"batch_size": 4, "device": "cpu", "log_seconds": 0, **(runtime or {})}
        ),
    )


def make_run(root: Path, **extra: str) -> RunDirectory:
    return open_run(root, "distill", StudentConfig(), extra)


def curve_of(run: RunDirectory) -> list[tuple[int, float, float]]:
    """(step, loss, learning rate) of every metric line, which resuming must not change."""
    return [(m["step"], m["loss"], m["learning_rate"]) for m in run.read_metrics()]
