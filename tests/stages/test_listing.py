"""``distinit teachers`` and ``distinit students``: their rows, and what is on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from distinit.cli import main
from distinit.pipeline.students.listing import list_students
from distinit.pipeline.students.registry import STUDENT_NAMES, build_student
from distinit.schemas.training import StudentConfig


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(main, [*arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def test_a_row_for_each_file_of_weights_and_none_is_downloaded(torch_home: Path) -> None:
    lines = printed("teachers", "ResNet50").splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["teacher", "classes", "pixels", "parameters", "here"],
        ["resnet50@IMAGENET1K_V1*", "1000", "224", "25.56", "M", "no"],
        ["resnet50@IMAGENET1K_V2", "1000", "224", "25.56", "M", "no"],
    ]
    assert list(torch_home.iterdir()) == []
    assert all(len(line) <= 80 for line in printed("teachers").splitlines())


def test_weights_that_are_here_are_marked(torch_home: Path) -> None:
    folder = torch_home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").touch()
    found = json.loads(printed("teachers", "resnet18", "--json"))["teachers"]
    assert found[0] == {
        "name": "resnet18@IMAGENET1K_V1",
        "is_default": True,
        "classes": 1000,
        "input_pixels": 224,
        "parameters": 11689512,
        "source": "torchvision",
        "licence": None,
        "is_here": True,
    }


def test_packaged_and_built_in_teachers_are_listed(torch_home: Path) -> None:
    found = {t["name"]: t for t in json.loads(printed("teachers", "--json"))["teachers"]}
    assert found["efficientnet_lite0"]["is_here"]  # a package of the development environment
    assert (found["null"]["classes"], found["null"]["input_pixels"]) == (16, None)


def test_the_sizes_of_students_are_those_of_their_networks() -> None:
    assert [entry.name for entry in list_students()] == list(STUDENT_NAMES)
    for entry in list_students():
        with torch.device("meta"):
            network = build_student(StudentConfig(name=entry.name))
        assert sum(p.numel() for p in network.parameters()) == entry.parameters, entry.name
        assert network.feature_dim == entry.feature_dim, entry.name


def test_students_of_a_family() -> None:
    lines = printed("students", "vmz_r3d").splitlines()
    assert lines[:4] == [
        "student     family                     parameters  features  inflated from",
        "vmz_r3d_18  VMZ (the paper's authors)  33.17 M     512       resnet18",
        "vmz_r3d_34  VMZ (the paper's authors)  63.48 M     512       resnet34",
        "",
    ]


def test_models_of_timm_are_listed_on_request() -> None:
    lines = printed("teachers", "timm:test_vit").splitlines()
    assert lines[0].split() == ["teacher", "classes", "pixels", "parameters", "here"]
    assert ["timm:test_vit.r160_in1k", "1000", "160", "-", "no"] in [line.split() for line in lines]
    assert not any(line.startswith("timm:") for line in printed("teachers").splitlines())
    entries = json.loads(printed("teachers", "timm:dinov2", "--json"))["teachers"]
    found = {entry["name"]: entry for entry in entries}["timm:vit_small_patch14_dinov2.lvd142m"]
    assert (found["classes"], found["input_pixels"]) == (0, 518)
    assert (found["is_here"], found["licence"]) == (False, "apache-2.0")
