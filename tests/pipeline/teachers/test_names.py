"""Misspelt names of teachers: the closest name of every source is suggested."""

from __future__ import annotations

import pytest

from distinit.pipeline.teachers.registry import load_network
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import TeacherRequest


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("efficientnet_lit0", "did you mean efficientnet_lite0"),
        ("ResNet-50", "did you mean resnet50"),
        ("nul", "did you mean null?"),
        ("resnet500@IMAGENET1K_V1", "did you mean resnet50"),
        ("plugn:mine:teacher", "did you mean plugin:mine:teacher?"),
        ("place365:resnet50", "did you mean places365:resnet50?"),
        ("tim:resnet50", "did you mean timm:resnet50?"),
        ("zzz", "list the names with `distinit teachers`"),
        ("", "list the names with `distinit teachers`"),
    ],
)
def test_the_closest_teacher_is_suggested(name: str, remedy: str) -> None:
    with pytest.raises(TeacherError, match="there is no teacher") as raised:
        load_network(TeacherRequest(name=name))
    assert str(raised.value.remedy).startswith(remedy)


def test_the_closest_weights_are_suggested() -> None:
    with pytest.raises(TeacherError, match='torchvision has no weights "IMAGENET1K-V2"') as raised:
        load_network(TeacherRequest(name="resnet50@IMAGENET1K-V2"))
    assert raised.value.remedy == "write resnet50@IMAGENET1K_V2"
