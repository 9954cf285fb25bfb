"""`features` and `probe`, killed while they write: the next call completes the result."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner
from helpers.killing import kill_at

from distinit.cli import main
from distinit.schemas.finetune import FinetuneConfig
from distinit.stages.finetune_result import FinetuneResult

type Finished = tuple[FinetuneConfig, FinetuneResult]
type Undisturbed = Callable[[str], dict[str, bytes]]


@pytest.fixture(scope="module")
def commands(finished: Finished) -> dict[str, list[str]]:
    """Name -> command, which writes to the folder ``out``."""
    run, frames, root = finished[0].out, finished[0].frames, finished[0].dataset.root
    assert frames is not None
    labelled = ["--dataset", root, "--frames", frames, "--protocol", "vmz-1", "--device", "cpu"]
    end = ["--out", "out", "--quiet"]
    return {
        "features": ["features", "--run", run, *labelled, *end],
        "probe": ["probe", "--init", f"file:{run}", *labelled, *end],
    }


@pytest.fixture(scope="module")
def undisturbed(
    commands: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    """The files of a command that was not killed; each command runs once."""
    known: dict[str, dict[str, bytes]] = {}

    def files_of(name: str) -> dict[str, bytes]:
        if name not in known:
            known[name] = complete(commands[name], tmp_path_factory.mktemp(name))
        return known[name]

    return files_of


def complete(command: list[str], folder: Path) -> dict[str, bytes]:
    """Run the command in ``folder``: relative path -> content of the files in ``out``."""
    with chdir(folder):
        result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    out = folder / "out"
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("name", "pattern", "moment", "left"),
    [
        ("features", r"features\.json", "after", "part-*.safetensors"),
        ("probe", r"part-.*", "before", "features/*/part-*.partial"),
        ("probe", r"probe\.json", "before", "probe.png"),
    ],
)
def test_the_next_call_completes_the_result_of_a_killed_command(
    name: str,
    pattern: str,
    moment: Literal["before", "after"],
    left: str,
    commands: dict[str, list[str]],
    undisturbed: Undisturbed,
    tmp_path: Path,
) -> None:
    kill_at(pattern, moment, commands[name], tmp_path)
    assert list((tmp_path / "out").glob(left))
    assert not (tmp_path / "out" / "probe.json").exists()
    assert complete(commands[name], tmp_path) == undisturbed(name)
