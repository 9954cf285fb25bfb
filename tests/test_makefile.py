"""The Makefile: which command a target runs, and what is refused."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Show what make would run, without the variables of a make that runs the tests."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--dry-run", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def command(target: str, *variables: str) -> list[str]:
    """The arguments of the one ``distinit`` command that a target runs."""
    result = make(target, *variables)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.replace("\\\n", " ").splitlines()
    (found,) = (line for line in lines if line.startswith(f".venv/bin/distinit {target}"))
    return shlex.split(found)[1:]


def settings(target: str, *variables: str) -> str:
    found = re.search(r'echo "settings: (.*)"', make(target, *variables).stdout)
    assert found is not None
    return found[1]


DISTILL = ["--frames", "work/frames", "--out", "work/distill"]


def test_another_cache_changes_nothing_else_in_distill() -> None:
    default, mine = command("distill"), command("distill", "CACHE=mine")
    rest = [*DISTILL, "--student", "tiny_r2plus1d_10", "--workers", "0"]
    assert default == ["distill", "--cache", "work/cache", *rest]
    assert mine == ["distill", "--cache", "mine", *rest]
    said = "the defaults of distinit distill, which follow the videos"
    assert settings("distill") == settings("distill", "CACHE=mine") == said


def test_a_given_configuration_is_said_and_keeps_its_network_and_workers() -> None:
    given = "DISTILL_CONFIG=configs/paper/distill.yaml"
    assert settings("distill", given) == "configs/paper/distill.yaml"
    config = ["distill", "--config", "configs/paper/distill.yaml", "--cache", "work/cache"]
    assert command("distill", given) == [*config, *DISTILL]
    assert command("distill", given, "STUDENT=r3d_18", "WORKERS=2", "ARGS=--epochs 5") == [
        *config,
        *DISTILL,
        *("--student", "r3d_18", "--workers", "2", "--epochs", "5"),
    ]
    finetune = command("finetune", "DATASET=d", "FINETUNE_CONFIG=configs/paper/scratch.yaml")
    assert finetune == [
        *("finetune", "--config", "configs/paper/scratch.yaml", "--dataset", "d"),
        *("--init", "distinit:work/distill", "--out", "work/finetune"),
    ]


@pytest.mark.parametrize(
    ("variables", "init"),
    [
        (["INIT=scratch", "STUDENT=r3d_18"], ["scratch", "--student", "r3d_18"]),
        (["INIT=inflated", "STUDENT=r3d_18"], ["inflated", "--student", "r3d_18"]),
        (["INIT=inflated:w.pth"], ["inflated:w.pth", "--student", "tiny_r2plus1d_10"]),
        (["INIT=distinit:runs/a"], ["distinit:runs/a"]),
        (["INIT=file:s.safetensors"], ["file:s.safetensors"]),
    ],
)
def test_finetune_names_the_network_where_the_init_does_not(
    variables: list[str], init: list[str]
) -> None:
    found = command("finetune", "DATASET=d", *variables)
    expected = ["--dataset", "d", "--init", *init, "--out", "work/finetune", "--workers", "0"]
    assert found == ["finetune", *expected]


def test_plan_doctor_and_runs() -> None:
    assert command("plan", "VIDEOS=v", "TEACHER=resnet50") == [
        *("plan", "--videos", "v", "--teacher", "resnet50")
    ]
    assert command("doctor") == ["doctor"]
    assert command("runs") == ["runs", "work"]
    assert command("runs", "FOLDER=runs", "ARGS=--json") == ["runs", "runs", "--json"]


@pytest.mark.parametrize("target", ["extract", "distill", "help"])
def test_a_misspelt_variable_is_refused_with_the_known_ones(target: str) -> None:
    result = make(target, "VIDEO=clips", "TEACHER=resnet50")
    assert result.returncode == 2
    assert "unknown variable VIDEO; known are: PYTHON" in result.stderr
    assert "distinit" not in result.stdout


def test_every_variable_with_a_default_is_known() -> None:
    text = (ROOT / "Makefile").read_text()
    (listed,) = re.findall(r"^VARIABLES := ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    known = set(listed.replace("\\", " ").split())
    assert set(re.findall(r"^([A-Z_]+) *\?=", text, re.MULTILINE)) == known - {"VENV"}
    for name in known:
        assert make("help", f"{name}=x").returncode == 0, name
    assert make("-j2", "--silent", "help").returncode == 0
