"""File names with any characters are escaped before they are printed; JSON output stays valid."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.videos import make_video
from hypothesis import given, settings
from hypothesis import strategies as st

from distinit.cli import main
from distinit.pipeline.extraction.failures import damage_lines, failure_lines
from distinit.pipeline.progress import JsonProgress, LogProgress
from distinit.pipeline.reports.html import element
from distinit.schemas.corpus import CorpusReport, Names
from distinit.schemas.plan import PlanConfig
from distinit.schemas.wording import shell_line
from distinit.stages.extract_result import ExtractResult, FailedVideo
from distinit.stages.frames import FramesResult
from distinit.stages.plan import plan

HOSTILE = (
    "ok: all bytes match\n.mp4",
    "\nok: all bytes match\n.mp4",
    "\x1b[2Jcleared.mp4",
    "\x1b]0;title\x07.mp4",
    "right\u202eleft.mp4",
    "c1\x9b31m.mp4",
    "line\u2028and\u2029.mp4",
    "tab\tand\rreturn.mp4",
)
NAMES = st.text(st.characters(), min_size=1, max_size=20)
BAD = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def unsafe(text: str) -> set[str]:
    """Characters in ``text`` that control a terminal, except line breaks."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in BAD}


def report(*names: str) -> CorpusReport:
    given = Names.of(names)
    kinds = ("new", "changed", "gone", "returned", "renamed", "duplicate", "unreadable")
    fields = dict.fromkeys(kinds, given)
    counts = dict.fromkeys(names, 1)
    return CorpusReport.model_validate(
        {"source": names[0], "videos": 1, **fields, "left_out": counts, "hidden_left_out": counts}
    )


def extracted(name: str) -> ExtractResult:
    return ExtractResult(
        cache=name,
        frames_store=name,
        content_digest="",
        complete=True,
        corpus=report(name),
        videos=2,
        frames=0,
        rows=0,
        failed=(FailedVideo(path=name, error=f"no: {name}"),),
        unavailable=1,
        decoder_errors={name: 1},
        damaged={name: name},
        concealed={name: name},
        teachers=(name,),
        encodings={},
        encoding_losses={},
        frames_done=0,
        seconds=0,
    )


@given(NAMES)
def test_a_name_adds_no_lines_and_no_control_characters(name: str) -> None:
    plain = "x"
    frames = FramesResult(
        frames_store=name, videos=0, frames=0, failed={name: name}, damaged={name: name}, seconds=0
    )
    for text, same in (
        (extracted(name).summary(), extracted(plain).summary()),
        ("\n".join(report(name).lines()), "\n".join(report(plain).lines())),
        ("\n".join(failure_lines([(name, "bad")])), "\n".join(failure_lines([("x", "bad")]))),
        (
            "\n".join(damage_lines({name: name}, {name: name})),
            "\n".join(damage_lines({"x": "x"}, {"x": "x"})),
        ),
        (
            frames.summary(),
            frames.model_copy(update={"failed": {"x": "x"}, "damaged": {"x": "x"}}).summary(),
        ),
    ):
        assert not unsafe(text)
        assert text.count("\n") == same.count("\n")
    assert not unsafe(element("p", name))


@given(NAMES)
def test_a_progress_message_is_one_line(name: str) -> None:
    stream = io.StringIO()
    LogProgress(stream).message(f"failed: {name}: reason")
    assert stream.getvalue().count("\n") == 1
    assert not unsafe(stream.getvalue())
    events = io.StringIO()
    JsonProgress(events).message(name)
    assert events.getvalue().isascii()
    assert json.loads(events.getvalue())["text"] == name


@settings(max_examples=30)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12))
def test_a_printed_command_can_be_pasted_into_a_shell(argument: str) -> None:
    line = shell_line(["printf", "%s|", argument])
    assert not unsafe(line)
    assert "\n" not in line
    command = ["bash", "-c", line]
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    found = subprocess.run(command, capture_output=True, check=True, env=env).stdout
    assert found.decode() == argument + "|"


def hostile_corpus(root: Path) -> list[str]:
    """Videos with hostile names: good, broken, copied, a dangling link, a name not in UTF-8."""
    root.mkdir()
    for seed, name in enumerate(HOSTILE):
        made = make_video(root / "plain.mp4", frames=4, seed=seed)
        made.rename(root / name)
    (root / "broken\n\x1b[1m.mp4").write_bytes(b"nothing")
    (root / "copy\n.mp4").write_bytes((root / HOSTILE[0]).read_bytes())
    (root / "link\n\x1b[0m.mp4").symlink_to(root / "nowhere")
    (root / "other.\x1b[7m").touch()
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff\n.mp4"))).write_bytes(b"x")
    return [*HOSTILE]


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a separate process."""
    command = [sys.executable, "-m", "distinit.cli", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def run_here(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in this process, which is faster: everything is imported already."""
    done = CliRunner().invoke(main, arguments)
    return subprocess.CompletedProcess(
        arguments, done.exit_code, done.stdout_bytes, done.stderr_bytes
    )


@pytest.fixture(scope="module")
def hostile(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[subprocess.CompletedProcess[bytes]]]:
    """A cache of videos with hostile names, and the output of the commands that were run on it."""
    home = tmp_path_factory.mktemp("hostile")
    hostile_corpus(home / "v")
    extract = ["extract", "--videos", str(home / "v"), "--teacher", "null"]
    extract += ["--cache", str(home / "cache"), "--frames", str(home / "frames")]
    outputs = [run(*extract)]
    (home / "v" / HOSTILE[2]).unlink()
    (home / "v" / HOSTILE[3]).rename(home / "v" / "renamed\n\x1b[2J.mp4")
    outputs += [
        run_here(*extract, "--max-failed", "0"),
        run_here(*extract, "--json"),
        run_here("cache", "verify", str(home / "cache")),
        run_here("audit", str(home / "cache"), "--out", str(home / "audit")),
    ]
    return home, outputs


def test_no_output_contains_control_characters(
    hostile: tuple[Path, list[subprocess.CompletedProcess[bytes]]],
) -> None:
    _, outputs = hostile
    assert [done.returncode for done in outputs] == [0, 1, 0, 0, 0]
    for done in outputs:
        text = (done.stdout + done.stderr).decode()
        assert "Traceback" not in text
        assert not unsafe(text), done.args
    texts = [(done.stdout + done.stderr).decode() for done in outputs]
    forged = [[line for line in text.splitlines() if line.startswith("ok: ")] for text in texts]
    assert [len(lines) for lines in forged] == [0, 0, 0, 1, 0], "only verify prints that line"


def test_every_video_is_reported_with_its_escaped_name(
    hostile: tuple[Path, list[subprocess.CompletedProcess[bytes]]],
) -> None:
    _, outputs = hostile
    first = outputs[0].stdout.decode()
    assert "8 of 11 videos" in first
    assert "  1 x no such file\n      link\\n\\x1b[0m.mp4\n" in first
    assert "  1 x its name is not UTF-8 text\n      \\udcff\\n.mp4: rename it\n" in first
    assert re.search(r"duplicate +1  copy\\n.mp4 = ", first) or "= copy\\n.mp4" in first
    assert r"1 file with other extensions left out: .\x1b[7m 1" in first
    assert r"renamed         1  \x1b]0;title\x07.mp4 -> renamed\n\x1b[2J.mp4" in (
        outputs[1].stderr.decode()
    )
    later = json.loads(outputs[2].stdout)
    paths = {video["path"] for video in later["failed"]}
    assert paths == {"broken\n\x1b[1m.mp4", "link\n\x1b[0m.mp4", "\\udcff\n.mp4"}
    assert later["corpus"]["gone"]["names"] == [HOSTILE[2]]
    assert later["corpus"]["renamed"]["count"] == 0, "reported by the run before"


def test_the_report_contains_escaped_names(
    hostile: tuple[Path, list[subprocess.CompletedProcess[bytes]]],
) -> None:
    home, _ = hostile
    html = (home / "audit/report.html").read_text()
    assert not unsafe(html)
    assert r"broken" in html


def test_a_plan_reports_videos_whose_names_are_not_utf8(tmp_path: Path) -> None:
    make_video(tmp_path / "v/a.mp4", frames=4)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/v/\xff.mp4")).write_bytes(b"x")
    (tmp_path / "v/notes.txt").touch()
    result = plan(PlanConfig(videos=str(tmp_path / "v"), seconds=0.1))
    assert result.refused == {"\\udcff.mp4": "its name is not UTF-8 text: rename it"}
    assert result.left_out == {".txt": 1}
    assert "1 file with other extensions left out: .txt 1" in result.summary()
