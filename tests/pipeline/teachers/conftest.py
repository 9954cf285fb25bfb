"""A small classifier with random weights, and frames for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import squeezenet1_1

StateDict = dict[str, torch.Tensor]


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
