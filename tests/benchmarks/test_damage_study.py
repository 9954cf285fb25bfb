"""The damage study: verdicts on real files, and a table that shows silent losses."""

from __future__ import annotations

from pathlib import Path

import damage_study
from click.testing import CliRunner
from helpers.videos import make_video


def test_whole_damaged_and_failed_files_are_distinguished(tmp_path: Path) -> None:
    make_video(tmp_path / "v/whole.mp4", frames=5)
    cut = make_video(tmp_path / "v/cut.mkv", frames=40, size=(160, 120))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "v/empty.mp4").touch()
    result = CliRunner().invoke(damage_study.main, ["--videos", str(tmp_path / "v")])
    lines = result.output.splitlines()
    assert lines[0] == "v: 3 files, 1 whole"
    assert lines[1].startswith("  cut.mkv: damaged: ")
    assert lines[2] == "  empty.mp4: failed: the file is empty (0 bytes)"


def test_all_zeroed_copies_are_detected(tmp_path: Path) -> None:
    found = [damage_study.judge(copy) for copy in damage_study.zeroed_copies("vp8.webm", tmp_path)]
    line = damage_study.zeroed_line("vp8.webm", found)
    assert (line["copies"], line["damaged"], line["silent"]) == (13, 13, 0)
    assert line["frames lost"] == line["both counts"] > 0


def test_a_silent_loss_is_counted() -> None:
    found = [damage_study.Judged("a", "whole", 199, ""), damage_study.Judged("b", "whole", 200, "")]
    line = damage_study.zeroed_line("x", found)
    assert (line["whole"], line["frames lost"], line["silent"]) == (2, 1, 1)
    assert damage_study.table([line]).splitlines()[2].endswith("| 1 |")
