"""Places365 teachers from checkpoints as they are published."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torchvision.models import squeezenet1_1

from distinit.pipeline.teachers.places365 import load_places365, read_categories
from distinit.schemas.errors import TeacherError, WeightsError
from distinit.schemas.teacher import TeacherRequest


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    with torch.random.fork_rng():
        state_dict = squeezenet1_1(num_classes=365).state_dict()
    wrapped = {f"module.{name}": tensor for name, tensor in state_dict.items()}
    path = tmp_path / "squeezenet_places365.pth.tar"
    torch.save({"arch": "squeezenet1_1", "epoch": 90, "state_dict": wrapped}, path)
    return path


def request(path: Path | None, architecture: str = "squeezenet1_1") -> TeacherRequest:
    weights = None if path is None else str(path)
    return TeacherRequest(name=f"places365:{architecture}", weights=weights)


def write_categories(folder: Path, first_index: int = 0) -> None:
    lines = [f"/a/place_{i}/indoor {i + first_index}" for i in range(365)]
    (folder / "categories_places365.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_identity(checkpoint: Path) -> None:
    network = load_places365(request(checkpoint))
    identity, spec = network.identity, network.identity.preprocessing
    assert identity.architecture == "places365/squeezenet1_1"
    assert (identity.classes, identity.label_space, identity.label_names) == (365, "places365", ())
    assert (spec.resize_mode, spec.resize_size, spec.crop_size) == ("squash", 256, 224)
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert network.default_id == f"places365-squeezenet1_1-{identity.weights_sha256[:8]}"


def test_class_names_are_read_from_a_file_next_to_the_weights(checkpoint: Path) -> None:
    write_categories(checkpoint.parent)
    names = load_places365(request(checkpoint)).identity.label_names
    assert len(names) == 365
    assert names[7] == "place_7/indoor"


def test_class_names_with_shifted_indices_are_refused(tmp_path: Path) -> None:
    write_categories(tmp_path, first_index=1)
    with pytest.raises(WeightsError, match="not those of Places365"):
        read_categories(tmp_path / "categories_places365.txt")


def test_weights_are_required_and_must_have_365_classes(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"--weights resnet18_places365\.pth\.tar"):
        load_places365(request(None, "resnet18"))
    torch.save(squeezenet1_1(num_classes=5).state_dict(), tmp_path / "five.pth")
    with pytest.raises(WeightsError, match="found:    5 classes"):
        load_places365(request(tmp_path / "five.pth"))


def test_an_unknown_architecture_is_refused(checkpoint: Path) -> None:
    with pytest.raises(TeacherError, match="resnet1"):
        load_places365(request(checkpoint, "resnet1"))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\xff\xfe/a/place 0\n" * 365, "not UTF-8 text"),
        (b"/a/place 0\n" * 365, '"/a/place 0" as line 2'),
        (b"x" * (1 << 20) + b"\n", "more than 1,048,576 bytes"),
        (b"\n\n", "0 lines"),
    ],
    ids=["not UTF-8", "another index", "too long", "empty"],
)
def test_malformed_class_names_are_refused(content: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "categories_places365.txt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not those of Places365") as raised:
        read_categories(path)
    assert raised.value.found == found


def test_reading_class_names_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "categories_places365.txt")
    with pytest.raises(WeightsError, match="not a regular file"):
        read_categories(tmp_path / "categories_places365.txt")
