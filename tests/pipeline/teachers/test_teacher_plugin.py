"""Plugin teachers are imported, called and checked; their code is part of their identity."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from distinit.pipeline.teachers.base import NetworkTeacher
from distinit.pipeline.teachers.plugin import load_plugin
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import TeacherRequest

SOURCE = '''
import torch
from distinit.schemas.teacher import PreprocessSpec

class Means(torch.nn.Module):
    """Logits: red, green, blue and their sum."""

    def forward(self, x):
        means = x.mean(dim=(2, 3))
        return torch.cat([means, means.sum(dim=1, keepdim=True)], dim=1)

class Map(torch.nn.Module):
    def forward(self, x):
        return x

SPEC = PreprocessSpec(
    resize_mode="squash", resize_size=8, crop_size=8, mean=(0, 0, 0), std=(1, 1, 1)
)
received = []

def means(weights, device):
    received.append((weights, device))
    return Means(), SPEC, ["red", "green", "blue", "sum"], "colours"

def unnamed(weights, device):
    return Means(), SPEC, [], ""

def wrong(weights, device):
    return Means(), SPEC

def unpooled(weights, device):
    return Map(), SPEC, [], "maps"

class Tokens(torch.nn.Module):
    """A class token of zeros, then the pixels."""

    num_prefix_tokens = 1

    def forward(self, x):
        pixels = x.flatten(2).transpose(1, 2)
        return torch.cat([torch.zeros_like(pixels[:, :1]), pixels], dim=1)

def tokens(weights, device):
    return Tokens(), SPEC, [], ""

def misnamed(weights, device):
    return Means(), SPEC, ["red"], "colours"

constant = 3
'''


@pytest.fixture
def plugin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "made_plugin.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "needs_more.py").write_text("import no_such_module\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("made_plugin", "needs_more"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def request(function: str, **fields: object) -> TeacherRequest:
    return TeacherRequest.model_validate({"name": f"plugin:{function}", **fields})


def test_a_plugin_gives_a_teacher(plugin_dir: Path) -> None:
    teacher = load_teacher(request("made_plugin:means", weights="some/file.bin"))
    frames_NHWC = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    frames_NHWC[1, ..., 0] = 255
    np.testing.assert_array_equal(teacher.forward(frames_NHWC), [[0, 0, 0, 0], [1, 0, 0, 1]])
    assert sys.modules["made_plugin"].received == [("some/file.bin", "cpu")]
    assert teacher.identity.label_names == ("red", "green", "blue", "sum")
    assert (teacher.identity.classes, teacher.identity.label_space) == (4, "colours")
    assert teacher.id.startswith("means-")


def test_features_of_a_plugin_are_its_output(plugin_dir: Path) -> None:
    network = load_plugin(request("made_plugin:means", target="features"), device="cpu")
    assert (network.identity.classes, network.identity.label_names) == (4, ())
    teacher = NetworkTeacher("features", network, device="cpu")
    white = np.full((1, 8, 8, 3), 255, dtype=np.uint8)
    np.testing.assert_array_equal(teacher.forward(white), [[1, 1, 1, 3]])


def test_edited_code_is_another_teacher(plugin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_plugin(request("made_plugin:unnamed"), device="cpu").identity
    edited = SOURCE.replace("means.sum(", "means.prod(")
    (plugin_dir / "made_plugin.py").write_text(edited, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "made_plugin")
    after = load_plugin(request("made_plugin:unnamed"), device="cpu").identity
    assert before.architecture != after.architecture
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("made_plugin", "does not name a function"),
        ("no_such_plugin:means", "no_such_plugin cannot be imported"),
        ("made_plugin:absent", "has no function absent"),
        ("made_plugin:constant", "found:    a number"),
        ("made_plugin:wrong", "found:    2 values: a network, a PreprocessSpec"),
        ("made_plugin:unpooled", r"found:    a tensor of shape \[1, 3, 8, 8\]"),
        ("made_plugin:misnamed", "found:    1 names"),
    ],
)
def test_an_invalid_plugin_is_refused(plugin_dir: Path, target: str, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        load_plugin(request(target), device="cpu")


def test_an_import_error_inside_a_plugin_names_the_package_and_the_line(plugin_dir: Path) -> None:
    with pytest.raises(TeacherError) as caught:
        load_plugin(request("needs_more:means"), device="cpu")
    assert "it imports no_such_module, which is not installed" in str(caught.value)
    assert f"{plugin_dir / 'needs_more.py'}, line 1: import no_such_module" in str(caught.value)


@pytest.mark.parametrize(
    ("function", "pool", "width"),
    [
        ("unpooled", "mean", 3),
        ("unpooled", "grid:2", 12),
        ("tokens", "mean", 3),
        ("tokens", "cls+mean", 6),
        ("tokens", "grid:4", 48),
        ("means", "head", 4),
    ],
)
@pytest.mark.usefixtures("plugin_dir")
def test_pools_of_tokens_and_maps(function: str, pool: str, width: int) -> None:
    name = f"plugin:made_plugin:{function}"
    teacher = load_teacher(TeacherRequest(name=name, target="features", pool=pool))
    assert (teacher.identity.classes, teacher.identity.pool) == (width, pool)
    frame_HWC = np.zeros((8, 8, 3), np.uint8)
    frame_HWC[:, :4] = 255, 0, 51  # the left half
    row_C = teacher.forward(frame_HWC[None])[0]
    expected = {
        "mean": [0.5, 0, 0.1],
        "cls+mean": [0, 0, 0, 0.5, 0, 0.1],
        "grid:2": [1, 0, 0.2, 0, 0, 0] * 2,
        "grid:4": [1, 0, 0.2, 1, 0, 0.2, 0, 0, 0, 0, 0, 0] * 4,
        "head": [0.5, 0, 0.1, 0.6],
    }[pool]
    np.testing.assert_allclose(row_C, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "pool", "problem"),
    [
        ("means", "mean", "returns neither tokens nor a feature map"),
        ("unpooled", "cls", "has no class token"),
        ("unpooled", "head", "is not one row per frame"),
        ("unpooled", None, "is not one row per frame"),
        ("tokens", "grid:9", "cannot be pooled to 9 x 9 cells"),
    ],
)
@pytest.mark.usefixtures("plugin_dir")
def test_pools_that_a_network_cannot_give(function: str, pool: str | None, problem: str) -> None:
    request = TeacherRequest(name=f"plugin:made_plugin:{function}", target="features", pool=pool)
    with pytest.raises(TeacherError, match=problem):
        load_plugin(request, device="cpu")
