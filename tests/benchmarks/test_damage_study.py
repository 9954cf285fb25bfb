"""The damage study: verdicts of real files, and a table that cannot hide a silent loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from click.testing import CliRunner


def test_files_of_each_verdict(
    load: Callable[[str], ModuleType], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    study: Any = load("damage_study")
    make_video(tmp_path / "v/whole.mp4", frames=5)
    cut = make_video(tmp_path / "v/cut.mkv", frames=40, size=(160, 120))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "v/empty.mp4").touch()
    result = CliRunner().invoke(study.main, ["--videos", str(tmp_path / "v")])
    lines = result.output.splitlines()
    assert lines[0] == "v: 3 files, 1 whole"
    assert lines[1].startswith("  cut.mkv: damaged: ")
    assert lines[2] == "  empty.mp4: failed: the file is empty (0 bytes)"


def test_zeroed_copies_are_all_noticed(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    study: Any = load("damage_study")
    found = [study.judge(copy) for copy in study.zeroed_copies("vp8.webm", tmp_path)]
    line = study.zeroed_line("vp8.webm", found)
    assert (line["copies"], line["damaged"], line["silent"]) == (13, 13, 0)
    assert line["frames lost"] == line["both counts"] > 0


def test_a_silent_loss_shows(load: Callable[[str], ModuleType]) -> None:
    study: Any = load("damage_study")
    found = [study.Found("a", "whole", 199, ""), study.Found("b", "whole", 200, "")]
    line = study.zeroed_line("x", found)
    assert (line["whole"], line["frames lost"], line["silent"]) == (2, 1, 1)
    assert study.table([line]).splitlines()[2].endswith("| 1 |")
