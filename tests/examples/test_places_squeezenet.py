"""The example of a plugin teacher, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.errors import TeacherError, WeightsError
from distinit.schemas.teacher import TeacherRequest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAME = "plugin:places_squeezenet:places_squeezenet"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(EXAMPLES)
    from places_squeezenet import PlacesSqueezeNet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(PlacesSqueezeNet().state_dict(), tmp_path / "places.pth")
    return tmp_path / "places.pth"


def test_weights_have_the_shapes_of_the_architecture(weights: Path) -> None:
    state_dict = torch.load(weights, weights_only=True)
    shapes = {name: list(tensor.shape) for name, tensor in state_dict.items()}
    assert shapes["features.0.conv.weight"] == [64, 3, 3, 3]
    assert shapes["features.2.squeeze.conv.weight"] == [16, 64, 1, 1]
    assert shapes["features.2.e3.conv.weight"] == [64, 16, 3, 3]
    assert shapes["features.11.e1.bn.running_mean"] == [256]
    assert shapes["conv10.weight"] == [365, 512, 1, 1]
    # 1 + 8 x 3 convolutions with 2 tensors, each with a batch norm with 5, and conv10
    assert len(shapes) == 25 * 7 + 2


def test_the_plugin_gives_a_teacher_with_bgr_preprocessing(weights: Path) -> None:
    teacher = load_teacher(TeacherRequest(name=NAME, weights=str(weights)))
    spec = teacher.identity.preprocessing
    assert (spec.resize_mode, spec.resize_size, spec.crop_size) == ("squash", 256, 224)
    assert (spec.channel_order, spec.std) == ("bgr", (1.0, 1.0, 1.0))
    assert spec.mean == pytest.approx((104.05 / 255, 112.51 / 255, 116.68 / 255))
    assert (teacher.identity.classes, teacher.identity.label_space) == (365, "places365")
    red, blue = np.zeros((2, 1, 20, 30, 3), dtype=np.uint8)
    red[..., 0] = blue[..., 2] = 255
    assert not np.array_equal(teacher.forward(red), teacher.forward(blue))


def test_missing_and_other_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="needs --weights"):
        load_teacher(TeacherRequest(name=NAME))
    torch.save({"conv10.weight": torch.zeros(3, 512, 1, 1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"conv10\.weight \[3, 512, 1, 1\] instead of"):
        load_teacher(TeacherRequest(name=NAME, weights=str(tmp_path / "other.pth")))
