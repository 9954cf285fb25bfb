"""Writes a tiny student as a distill run does, and a network that kills its process."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distinit.pipeline.students.heads import new_student
from distinit.pipeline.students.io import save_student
from distinit.pipeline.students.registry import build_student
from distinit.schemas.run import HeadRecord, StudentRecord
from distinit.schemas.training import FLOW_PIXELS, ClipConfig, StudentConfig

TINY = StudentConfig(name="tiny_r2plus1d_10")
CLIP = {"frames": 4, "crop": 32}


def save_distilled(
    folder: Path, trained_by: str = "distill", student: Any = TINY, **clip: Any
) -> Path:
    """Write a run folder with a tiny student that has one head, ``teacher``."""
    network = StudentConfig.model_validate(student)
    clip = CLIP | (FLOW_PIXELS if network.in_channels == 2 else {}) | clip
    student = new_student(network, {"teacher": 5}, seed=9)
    record = StudentRecord.model_validate(
        {
            "student": network,
            "clip": ClipConfig.model_validate(clip),
            "feature_dim": 128,
            "heads": (HeadRecord(name="teacher", outputs=5, label_space="x"),),
            "trained_by": trained_by,
            "config": {},
        }
    )
    folder.mkdir()
    save_student(folder, student, record)
    return folder


class Mortal(nn.Module):
    """Kills its process at a bright clip, but only ``lives`` times in all.

    Each death leaves a file in ``graves``.
    """

    def __init__(self, graves: Path, lives: int) -> None:
        super().__init__()
        self.network = build_student(TINY)
        self.feature_dim = self.network.feature_dim
        self.graves, self.lives = graves, lives

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        deaths = len(list(self.graves.iterdir()))
        if clip_BCTHW.max() > 0.9 and deaths < self.lives:
            (self.graves / str(deaths)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        features: Tensor = self.network(clip_BCTHW)
        return features
