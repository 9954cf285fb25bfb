"""The exit codes, and the page that documents them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.command_line import run_command
from helpers.videos import make_video

from distinit.schemas import errors
from distinit.schemas.exit_codes import ExitCode

PAGE = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text()


def test_the_codes_are_those_of_the_page() -> None:
    documented = dict(re.findall(r"^\| (\d+) \| ([A-Z]+) \|", PAGE, re.M))
    assert documented == {str(int(code)): code.name for code in ExitCode}
    values = {code.name: int(code) for code in ExitCode}
    assert values == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "INCOMPLETE": 3,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


def subclasses(kind: type[errors.DistInitError]) -> set[type[errors.DistInitError]]:
    found = {kind for kind in kind.__subclasses__() if kind.__module__ == errors.__name__}
    return {kind}.union(*(subclasses(child) for child in found))


def test_every_error_has_the_code_of_the_page() -> None:
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.M))
    kinds = subclasses(errors.DistInitError)
    assert documented == {kind.__name__: str(int(kind.exit_code)) for kind in kinds}
    assert {kind.exit_code for kind in kinds} == {ExitCode.FAILED, ExitCode.USAGE}


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("finetune", "--init", "inflated"), 1, "are not on this machine"),
        (("finetune", "--init", "inflated:gone.pth"), 2, "are not on this machine"),
        (("finetune", "--init", "distinit:gone"), 2, "no student at gone"),
        (("extract", "--teacher", "resnet50"), 1, "are not on this machine"),
        (("extract", "--teacher", "resnet50", "--weights", "gone.pth"), 2, "gone.pth"),
    ],
)
def test_an_input_that_the_command_names_gives_2_and_one_that_it_does_not_name_gives_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Sequence[str], code: int, problem: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4")
    rest = {
        "finetune": ("--dataset", "videos", "--student", "r3d_18", "--out", "out"),
        "extract": ("--videos", "videos", "--cache", "cache"),
    }
    found, output = run_command([*words, *rest[words[0]]])
    assert (found, problem in output) == (code, True), output
