"""Names of teachers are dispatched to their sources."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distinit.pipeline.teachers.null import NullTeacher
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.errors import ConfigError, TeacherError
from distinit.schemas.teacher import TeacherRequest


def test_an_id_in_the_request_replaces_the_default(squeezenet_file: Path) -> None:
    request = TeacherRequest(name="squeezenet1_1", weights=str(squeezenet_file), id="mine")
    assert load_teacher(request).id == "mine"
    assert load_teacher(TeacherRequest(name="null", id="other")).id == "other"


def test_the_null_teacher_is_built_for_any_device() -> None:
    assert isinstance(load_teacher(TeacherRequest(name="null"), device="auto"), NullTeacher)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("places365:resnet18", "needs a weights file"),
        ("timm:", "timm"),
        ("plugin:nothing", "does not name a function"),
        ("huggingface:resnet", 'there is no teacher "huggingface:resnet"'),
        ("", 'there is no teacher ""'),
    ],
)
def test_names_are_dispatched_by_their_prefix(name: str, message: str) -> None:
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
    with pytest.raises(ConfigError, match='unknown device "gpu"'):
        load_teacher(request, device="gpu")
