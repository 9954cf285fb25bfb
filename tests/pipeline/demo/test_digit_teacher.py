"""The digit teacher learns, is reproducible, and sees in extraction what it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distinit.pipeline.demo.digit_teacher import (
    digit_teacher,
    held_out_accuracy,
    train_teacher,
)
from distinit.pipeline.demo.digits import stills
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.teacher import TeacherRequest

PLUGIN = "plugin:distinit.pipeline.demo.digit_teacher:digit_teacher"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    train_teacher(path, epochs=1, per_scan=2)
    return path


def test_training_is_reproducible(weights: Path, tmp_path: Path) -> None:
    train_teacher(tmp_path / "again.safetensors", epochs=1, per_scan=2)
    assert (tmp_path / "again.safetensors").read_bytes() == weights.read_bytes()


def test_accuracy_is_the_fraction_of_correct_stills(weights: Path) -> None:
    net, *_ = digit_teacher(str(weights), "cpu")
    found = list(stills("held_out", 4, seed=1))
    frames_NHWC = np.stack([frame for frame, _ in found])
    frames_NCHW = torch.from_numpy(frames_NHWC).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        top1_N = net.eval()(frames_NCHW).argmax(dim=1).numpy()
    correct = int((top1_N == [label for _, label in found]).sum())
    assert held_out_accuracy(weights) == pytest.approx(100 * correct / 800, abs=0.5)


def test_extraction_gives_the_logits_of_the_trained_network(weights: Path) -> None:
    teacher = load_teacher(TeacherRequest(name=PLUGIN, weights=str(weights)))
    assert teacher.identity.classes == 10
    assert teacher.identity.label_names == tuple("0123456789")
    frames_NHWC = np.stack([frame for frame, _ in list(stills("train", 1, seed=3))[:6]])
    net, *_ = digit_teacher(str(weights), "cpu")
    with torch.inference_mode():
        inputs = torch.from_numpy(frames_NHWC).permute(0, 3, 1, 2) / 127.5 - 1
        expected_NC = net.eval()(inputs).numpy()
    assert np.allclose(teacher.forward(frames_NHWC), expected_NC, atol=1e-4)
