"""timm teachers, if timm is installed, and the error if it is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from distinit.pipeline.teachers.timm_models import load_timm
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import TeacherRequest

NAME = "timm:mobilenetv3_small_050"


def test_missing_timm_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(TeacherError, match="timm is not installed") as raised:
        load_timm(TeacherRequest(name=NAME))
    assert raised.value.remedy == "pip install timm"


@pytest.mark.parametrize(("target", "width"), [("logits", 5), ("features", 1024)])
def test_identity(target: str, width: int, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    weights = tmp_path / "w.pth"
    torch.save(timm.create_model(NAME[5:], num_classes=5).state_dict(), weights)
    request = TeacherRequest.model_validate(
        {"name": NAME, "weights": str(weights), "target": target}
    )
    identity = load_timm(request).identity
    assert identity.architecture == "timm/mobilenetv3_small_050"
    assert identity.classes == width
    assert identity.preprocessing.resize_size == 256
    assert identity.preprocessing.crop_size == 224


def test_missing_weights_and_unknown_names_are_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(TeacherError, match="needs a weights file"):
        load_timm(TeacherRequest(name=NAME))
    with pytest.raises(TeacherError, match="no model"):
        load_timm(TeacherRequest(name="timm:no_such_model"))
