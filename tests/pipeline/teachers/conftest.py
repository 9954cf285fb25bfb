"""A small classifier with random weights, a teacher that needs much memory, and frames."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import squeezenet1_1

from distinit.pipeline.teachers.base import NetworkTeacher
from distinit.pipeline.teachers.plugin import load_plugin
from distinit.schemas.teacher import TeacherRequest

StateDict = dict[str, torch.Tensor]
PLUGIN = '''
import torch
from distinit.schemas.teacher import PreprocessSpec

class Hungry(torch.nn.Module):
    """Channel means; out of memory for more than ``most`` frames. ``seen``: all batch sizes."""

    most = 5

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return x.mean(dim=(2, 3))


def hungry(weights, device):
    spec = PreprocessSpec(
        resize_mode="squash", resize_size=8, crop_size=8, mean=(0, 0, 0), std=(1, 1, 1)
    )
    return Hungry(), spec, [], "means"
'''


@pytest.fixture(scope="session")
def squeezenet_state() -> StateDict:
    """SqueezeNet 1.1 with 7 classes, random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return squeezenet1_1(num_classes=7).state_dict()


@pytest.fixture
def squeezenet_file(squeezenet_state: StateDict, tmp_path: Path) -> Path:
    path = tmp_path / "seven.pth"
    torch.save(squeezenet_state, path)
    return path


@pytest.fixture(scope="session")
def noise_frames() -> np.ndarray:
    """uint8 [5, 48, 64, 3]: noise, so that every frame and pixel differs."""
    return np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(name="hungry")
def hungry_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NetworkTeacher:
    (tmp_path / "hungry_plugin.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hungry_plugin", raising=False)
    network = load_plugin(TeacherRequest(name="plugin:hungry_plugin:hungry"), device="cpu")
    return NetworkTeacher("hungry", network, device="cpu")


@pytest.fixture(name="frames_NHWC")
def made_frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)
