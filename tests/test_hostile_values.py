"""Every option of every command with values that it cannot use: plain words, documented codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from helpers.command_line import command_of, commands, run_command

from distinit.pipeline.command_groups import SectionedCommand
from distinit.schemas.exit_codes import ExitCode

# What else each command gets: enough to be valid, but of inputs that do not exist.
OTHERS = {
    "config": "distill",
    "cache info": "nowhere",
    "cache match": "nowhere --videos nowhere --out out",
    "cache verify": "nowhere",
    "cache schemas": "",
    "cache keygen": "--out file.txt/below",
    "cache sign": "nowhere --key nowhere",
    "cache statistics": "nowhere",
    "cache push": "nowhere out",
    "cache pull": "nowhere out",
    "cache merge": "nowhere nowhere2 --out out",
    "cache subset": "nowhere --out out",
    "cache diff": "nowhere nowhere2",
    "cache encode": "nowhere --encoding int8 --out out",
    "cache describe": "nowhere --license MIT",
    "frames verify": "nowhere",
    "frames build": "--videos nowhere --out out",
    "flow build": "--frames nowhere --out out",
    "figures filters": "--run a=nowhere --out out",
    "figures embedding": "--run a=nowhere --out out",
    "figures threshold": "--cache nowhere --run a=nowhere --out out",
    "figures gain": "--run a=nowhere --run b=nowhere --out out",
    "figures confused": "--run a=nowhere --out out",
    "runs": ".",
    "teachers": "nowhere",
    "students": "nowhere",
    "features": "--run nowhere --dataset nowhere --out out",
    "probe": "--init distinit:nowhere --dataset nowhere --out out",
    "extract": "--videos nowhere --teacher null --cache out",
    "distill": "--cache nowhere --frames nowhere --out out",
    "finetune": "--dataset nowhere --init distinit:nowhere --out out",
    "evaluate": "--run nowhere",
    "audit": "nowhere --out out",
    "cache relabel": "nowhere --vocabulary nowhere --out out",
    "plan": "--videos nowhere --teacher null",
    "doctor": "",
    "demo": "--only footage --out file.txt/below",
    "reproduce": "table1 --plan --out out",
}
NO_INPUTS = {
    "config",
    "cache schemas",
    "cache keygen",
    "runs",
    "teachers",
    "students",
    "doctor",
    "demo",
    "reproduce",
}
"""Commands that need no input, or create theirs."""
VALUES = (
    "",
    "x" * 5000,
    "new\nline 'and' \"quotes\"",
    "\udcff",
    "folder",
    "file.txt",
    "file.txt/below",
    "nowhere:x",
    "-1",
    "0",
    "nan",
    "inf",
    "1e308",
    "1" + 30 * "0",
)
# Of demo only these, because it would begin its work with any other folder.
UNUSABLE = ("", "x" * 5000, "\udcff", "file.txt", "file.txt/below")


def lines(path: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """(value, command line) for each value of each option and argument."""
    others = OTHERS[" ".join(path)].split()
    for param in command_of(path).params:
        if isinstance(param, click.Option) and param.is_flag:
            continue
        for value in UNUSABLE if path == ("demo",) else VALUES:
            if isinstance(param, click.Argument):
                yield value, [*path, *others[1:], "--", value]
                continue
            name = param.opts[0]
            rest = list(others)
            while name in rest:
                at = rest.index(name)
                del rest[at : at + 2]
            yield value, [*path, *rest, name, *[value] * param.nargs]
            if name == "--set":
                yield value, [*path, *rest, name, f"out={value}"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("x\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_no_value_of_an_option_shows_internals(path: tuple[str, ...], folder: Path) -> None:
    for value, line in lines(path):
        code, output = run_command(line)
        assert code in (ExitCode.OK, ExitCode.FAILED, ExitCode.USAGE, ExitCode.INCOMPLETE), output
        if value in ("", "\udcff"):
            assert code == ExitCode.USAGE, (line, output)
        if code not in (ExitCode.OK, ExitCode.INCOMPLETE) and path != ("doctor",):
            assert "rror: " in output, (line, output)
    assert {entry.name for entry in folder.iterdir()} >= {"folder", "file.txt"}


@pytest.mark.parametrize("missing", ["nowhere", "file.txt", "folder", "x" * 5000])
def test_an_input_that_is_not_there_gives_the_same_code_in_every_command(
    missing: str, folder: Path
) -> None:
    for path in commands():
        name = " ".join(path)
        if name in NO_INPUTS:
            continue
        arguments = OTHERS[name].replace("nowhere", missing).split()
        code, output = run_command([*path, *arguments])
        assert code == ExitCode.USAGE, (path, output)
        assert not (folder / "out").exists(), path


def test_every_command_refuses_values_that_no_command_can_use() -> None:
    for path in commands():
        assert isinstance(command_of(path), SectionedCommand), path
