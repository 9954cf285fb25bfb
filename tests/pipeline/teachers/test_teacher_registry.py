"""From names to teachers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distinit.pipeline.teachers.null import NullTeacher
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.errors import ConfigError, TeacherError
from distinit.schemas.teacher import TeacherRequest


def test_a_given_id_wins(squeezenet_file: Path) -> None:
    request = TeacherRequest(name="squeezenet1_1", weights=str(squeezenet_file), id="mine")
    assert load_teacher(request).id == "mine"
    assert load_teacher(TeacherRequest(name="null", id="other")).id == "other"


def test_null_is_built_without_a_network() -> None:
    assert isinstance(load_teacher(TeacherRequest(name="null"), device="auto"), NullTeacher)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("places365:resnet18", "needs its weights"),
        ("timm:", "timm"),
        ("plugin:nothing", "cannot tell which function"),
        ("huggingface:resnet", "there is no teacher 'huggingface:resnet'"),
        ("", "there is no teacher ''"),
    ],
)
def test_names_reach_their_source(name: str, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        load_teacher(TeacherRequest(name=name))


def test_a_missing_gpu_is_refused(squeezenet_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    request = TeacherRequest(name="squeezenet1_1", weights=str(squeezenet_file))
    with pytest.raises(ConfigError, match="use --device cpu"):
        load_teacher(request, device="cuda")
    assert load_teacher(request, device="auto").device == "cpu"


def test_an_unknown_device_is_refused(squeezenet_file: Path) -> None:
    request = TeacherRequest(name="squeezenet1_1", weights=str(squeezenet_file))
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        load_teacher(request, device="gpu")
