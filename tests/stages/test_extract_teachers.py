"""Teachers that are not what they were, or that do not answer for every video."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.errors import CacheMismatchError, TeacherError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.teacher import TeacherRequest
from distinit.stages.extract import _same_teachers, extract

PLUGIN = """
from made_network import Net
from distinit.schemas.teacher import PreprocessSpec

def teach(weights, device):
    spec = PreprocessSpec(
        resize_mode="squash", resize_size=8, crop_size=8, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    return Net(), spec, [], ""
"""
NETWORK = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
"""
REQUEST = TeacherRequest(name="plugin:made_teacher:teach", id="made")


class Folder:
    """A folder on Python's path with a plugin whose network can be edited."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._monkeypatch = monkeypatch
        monkeypatch.syspath_prepend(root)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # its time stamp has seconds
        (root / "made_teacher.py").write_text(PLUGIN)
        self.write(NETWORK)

    def write(self, network: str) -> None:
        (self._root / "made_network.py").write_text(network)
        for name in ("made_teacher", "made_network"):
            self._monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    folder = tmp_path / "plugins"
    folder.mkdir()
    return Folder(folder, monkeypatch)


def config_of(
    corpus: Path, root: Path, *requests: TeacherRequest, **changes: object
) -> ExtractConfig:
    fields = {"videos": str(corpus), "teachers": requests, "cache": str(root), "max_failed": 1.0}
    return ExtractConfig.model_validate(fields | changes)


def test_a_teacher_whose_imported_code_was_edited_is_refused(
    corpus: Path, tmp_path: Path, plugin: Folder
) -> None:
    config = config_of(corpus, tmp_path / "cache", REQUEST)
    assert extract(config).complete
    assert extract(config).frames_done == 0
    plugin.write(NETWORK.replace("avg", "max"))
    with pytest.raises(CacheMismatchError) as raised:
        extract(config)
    assert raised.value.problem == "the cache has another teacher named made"
    assert str(raised.value.found).startswith("answer to the probe picture: class ")


def test_a_worker_whose_teacher_is_not_the_drivers_says_what_differs(
    corpus: Path, tmp_path: Path, plugin: Folder
) -> None:
    config = config_of(corpus, tmp_path / "cache", REQUEST)
    identities = {"made": load_teacher(REQUEST).identity}
    assert list(_same_teachers(config, identities)) == ["made"]
    plugin.write(NETWORK.replace("avg", "max"))
    with pytest.raises(TeacherError, match="answer to the probe picture") as raised:
        _same_teachers(config, identities)
    assert "is not that of the driver" in raised.value.problem
