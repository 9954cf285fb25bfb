"""A trained student reads the clips that it describes, and refuses others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.students import save_distilled

from distinit.pipeline.distillation.normalization import Normalization
from distinit.pipeline.distillation.normalization_file import write_normalizations
from distinit.pipeline.inference.student import TrainedStudent, load_student
from distinit.pipeline.records import file_entry
from distinit.pipeline.students.io import NORMALIZATION_NAME, read_student, save_student
from distinit.schemas.errors import CheckpointError, ConfigError


@pytest.fixture
def student(tmp_path: Path) -> TrainedStudent:
    return load_student(save_distilled(tmp_path / "run"))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_a_run_and_its_file_load_the_same_student(tmp_path: Path, student: TrainedStudent) -> None:
    assert not student.network.training
    assert (student.clip.frames, student.clip.crop) == (4, 32)
    assert student.label_names == ()
    file = load_student(str(tmp_path / "run/student.safetensors"))
    clip = student.input_of(noise(4, 40, 50, 3))
    with torch.no_grad():
        ours, theirs = student.network(clip), file.network(clip)
    assert ours.keys() == {"teacher"}
    assert ours["teacher"].shape == (1, 5)
    assert torch.equal(ours["teacher"], theirs["teacher"])
    features = student.features(clip)
    assert features.shape == (1, 128)
    head = student.network.heads["teacher"]
    assert torch.allclose(head(features), ours["teacher"])


def test_the_input_is_the_normalised_centre(student: TrainedStudent) -> None:
    frames = noise(4, 41, 50, 3)
    clip = student.input_of(frames)
    assert (clip.shape, clip.dtype) == ((1, 3, 4, 32, 32), torch.float32)
    centre = frames[:, 4:36, 9:41] / 255
    expected = (centre - np.array(student.clip.mean)) / np.array(student.clip.std)
    assert np.allclose(clip[0].numpy(), expected.transpose(3, 0, 1, 2), atol=1e-5)


def test_frames_of_another_size_are_scaled_on_request(student: TrainedStudent) -> None:
    frames = np.broadcast_to(np.array([10, 20, 30], np.uint8), (4, 64, 80, 3))
    scaled = student.input_of(frames, size=(36, 44))
    assert torch.equal(scaled, student.input_of(frames))  # one colour stays what it is
    halves = np.zeros((4, 64, 64, 3), np.uint8)
    halves[:, :, 32:] = 255
    clip = student.input_of(halves, size=(32, 32))
    expected = student.input_of(halves[:, ::2, ::2])
    assert torch.allclose(clip[..., :14], expected[..., :14])
    assert torch.allclose(clip[..., 18:], expected[..., 18:])


@pytest.mark.parametrize(
    "frames",
    [
        noise(5, 40, 40, 3),
        noise(4, 40, 31, 3),
        noise(4, 40, 40, 2),
        noise(40, 40, 3),
        noise(4, 40, 40, 3) / 255,
    ],
    ids=["length", "size", "channels", "axes", "type"],
)
def test_frames_that_are_no_clip_are_refused(student: TrainedStudent, frames: Any) -> None:
    with pytest.raises(ConfigError, match="not a clip of this student") as raised:
        student.input_of(frames)
    assert raised.value.expected == "uint8 [4, height, width, 3], with at least 32 x 32 pixels"
    assert raised.value.found == f"{frames.dtype} {list(frames.shape)}"


def test_a_folder_without_a_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no student at"):
        load_student(tmp_path)


def normalized_student(folder: Path, kept: str = "teacher", channels: int = 5) -> TrainedStudent:
    """A student whose head learnt features that were standardized to mean 2 and scale .5."""
    save_distilled(folder)
    network, record = read_student(folder)
    head = record.heads[0].model_copy(update={"normalize": "standardize"})
    mean, scale = torch.full((channels,), 2.0), torch.full((channels,), 0.5)
    write_normalizations(folder, {kept: Normalization(mean, scale)})
    entry = file_entry(folder / NORMALIZATION_NAME)
    changes = {"heads": (head,), "normalization": entry}
    save_student(folder, network, record.model_copy(update=changes))
    return load_student(folder)


def test_teacher_outputs_are_in_the_units_of_the_teacher(
    tmp_path: Path, student: TrainedStudent
) -> None:
    clip = student.input_of(noise(4, 40, 50, 3))
    with torch.no_grad():
        plain = student.network(clip)["teacher"]
    assert torch.equal(student.teacher_outputs(clip)["teacher"], plain)
    undone = normalized_student(tmp_path / "normalized").teacher_outputs(clip)
    assert undone.keys() == {"teacher"}
    assert torch.allclose(undone["teacher"], 2 * plain + 2)


def test_a_student_without_its_normalization_predicts_no_features(tmp_path: Path) -> None:
    others = normalized_student(tmp_path / "others", kept="another")
    clip = others.input_of(noise(4, 40, 50, 3))
    with pytest.raises(CheckpointError, match="is not known") as raised:
        others.teacher_outputs(clip)
    assert raised.value.found == "no tensors for it"
    narrow = normalized_student(tmp_path / "narrow", channels=4)
    with pytest.raises(CheckpointError, match="is not known") as raised:
        narrow.teacher_outputs(clip)
    assert raised.value.expected == (
        "normalization.safetensors next to the student, with 5 channels for this head"
    )
    assert raised.value.found == "4 channels"
    (tmp_path / "narrow" / NORMALIZATION_NAME).unlink()
    moved = load_student(tmp_path / "narrow")
    assert moved.features(clip).shape == (1, 128)
    with pytest.raises(CheckpointError, match="is not known"):
        moved.teacher_outputs(clip)
