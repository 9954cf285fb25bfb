"""The command line: help pages with examples, one message per mistake, no traceback."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from helpers.command_line import command_of, commands, run_command
from helpers.videos import make_video

from distinit.cli import main


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"distinit {' '.join(path)}" in result.output


def examples_of(path: tuple[str, ...]) -> list[list[str]]:
    """The words of each example on the help page of a command."""
    epilog = command_of(path).epilog or ""
    joined = re.sub(r" *\\\n *", " ", epilog.partition("Examples:\n")[2])
    return [shlex.split(line) for line in joined.splitlines() if line.startswith("  distinit ")]


@pytest.mark.parametrize("path", [(), *commands()], ids=" ".join)
def test_the_examples_of_every_help_page_parse(path: tuple[str, ...]) -> None:
    found = examples_of(path)
    assert found
    for program, *words in found:
        assert program == "distinit"
        named = next(p for p in commands() if tuple(words[: len(p)]) == p)
        assert named[: len(path)] == path
        words = words[len(named) : words.index(">") if ">" in words else None]
        command_of(named).make_context(" ".join(named), words)


def test_the_main_help_lists_every_command_once_in_sections() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert "docs/exit-codes.md" in result.output
    lines = [line.split()[0] for line in result.output.splitlines() if line.startswith("  ")]
    for name in main.commands:
        assert lines.count(name) == 1, name
    assert "Pipeline:" in result.output
    assert "More:" not in result.output, "a command has no section"


def test_the_options_of_training_are_listed_in_sections() -> None:
    sections = {"distill": ["Targets of all teachers:"], "finetune": []}
    for command, own in sections.items():
        output = CliRunner().invoke(main, [command, "--help"]).output
        titles = [line for line in output.splitlines() if line.endswith(":") and line[0] != " "]
        assert titles == ["Options:", *own, "Training:", "Workers and device:"]
        training = output.partition("Training:")[2].partition("Workers and device:")[0]
        named = [line.split()[0] for line in training.splitlines() if line.startswith("  --")]
        assert named == [
            "--epochs",
            "--clips-per-epoch",
            "--batch-size",
            "--lr",
            "--seed",
            "--precision",
        ]


def options_of(path: tuple[str, ...]) -> list[click.Option]:
    return [param for param in command_of(path).params if isinstance(param, click.Option)]


CONFIGURED = [path for path in commands() if any(o.name == "config_file" for o in options_of(path))]


@pytest.mark.parametrize("path", CONFIGURED, ids=" ".join)
def test_the_options_without_which_a_command_fails_are_marked_as_required(
    path: tuple[str, ...],
) -> None:
    code, output = run_command(path)
    assert code == 2
    by_click = [option for option in options_of(path) if option.required]
    marked = {option.opts[0] for option in options_of(path) if "[required]" in (option.help or "")}
    assert bool(marked) != bool(by_click)
    if not by_click:
        assert set(re.findall(r"missing; give it as (--\S+)", output)) == marked


MISTAKES = {
    "missing folder": (["--videos", "nowhere", "--teacher", "null"], 2, "nowhere"),
    "no videos": (["--videos", "empty", "--teacher", "null"], 2, "no videos"),
    "unknown teacher": (["--videos", "videos", "--teacher", "resnet51"], 2, "resnet51"),
    "unreadable weights": (
        ["--videos", "videos", "--teacher", "resnet18", "--weights", "torn.pth"],
        1,
        "torn.pth",
    ),
    "missing weights": (
        ["--videos", "videos", "--teacher", "resnet18", "--weights", "none.pth"],
        2,
        "none.pth",
    ),
    "unknown key": (
        ["--videos", "videos", "--teacher", "null", "--set", "batchsize=3"],
        2,
        "batchsize: unknown key",
    ),
    "no teacher": (["--videos", "videos"], 2, "teachers: missing; give it as --teacher NAME, "),
    "no frames": (
        ["--videos", "videos", "--teacher", "null", "--stride", "0"],
        2,
        "--stride (sampling.stride): must be at least 1 (found 0)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_message_and_no_traceback(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"not a video")
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04 torn")
    arguments, code, expected = MISTAKES[mistake]
    result = CliRunner().invoke(main, ["extract", "--cache", "cache", "--quiet", *arguments])
    assert result.exit_code == code, result.output
    assert expected.lower() in result.output.lower()
    assert result.output.startswith("error: ")
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert not (tmp_path / "cache" / "manifest.json").exists()


def test_cache_commands_refuse_a_folder_that_is_not_a_cache(tmp_path: Path) -> None:
    for command in ("info", "verify"):
        result = CliRunner().invoke(main, ["cache", command, str(tmp_path)])
        assert result.exit_code == 2
        assert "manifest" in result.output


def test_doctor_reports_the_same_checks_as_text_and_json(tmp_path: Path) -> None:
    text = CliRunner().invoke(main, ["doctor", "--folder", str(tmp_path)])
    assert text.exit_code == 0
    report = json.loads(
        CliRunner().invoke(main, ["doctor", "--folder", str(tmp_path), "--json"]).output
    )
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["ffmpeg"]["status"] == "ok"
    assert checks["write access"]["found"] == str(tmp_path)
    for name, check in checks.items():
        assert f"{name} " in text.output
        assert check["status"] != "fail"


def test_doctor_fails_without_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTINIT_FFMPEG", str(tmp_path / "no-ffmpeg"))
    result = CliRunner().invoke(main, ["doctor", "--folder", str(tmp_path)])
    assert result.exit_code == 1
    assert "fail  ffmpeg" in result.output
    assert "something needed is missing" in result.output


@pytest.mark.parametrize(
    ("options", "mode", "rows"),
    [
        ([], "all", 24),
        (["--stride", "5"], "stride", 5),
        (["--fps", "2.5"], "fps", 6),
        (["--per-video", "4"], "per_video", 4),
    ],
)
def test_sampling_options_choose_the_rows_and_are_recorded_in_the_manifest(
    options: list[str], mode: str, rows: int, tmp_path: Path
) -> None:
    make_video(tmp_path / "-a [1] ö.mp4", frames=24, rate=10)
    command = ["extract", "--videos", str(tmp_path), "--teacher", "null", "--quiet", *options]
    result = CliRunner().invoke(main, [*command, "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "cache" / "manifest.json").read_text())
    assert manifest["sampling"]["mode"] == mode
    assert manifest["row_space"]["rows"] == rows


def test_one_file_is_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "a [1] ö.mp4", frames=12)
    make_video(tmp_path / "other.mp4", frames=9, seed=1)
    one = ["--videos", "a [1] ö.mp4", "--quiet", "--json"]
    extracted = CliRunner().invoke(
        main, ["extract", *one, "--teacher", "null", "--cache", "cache", "--frames", "frames"]
    )
    assert extracted.exit_code == 0, extracted.output
    result = json.loads(extracted.stdout)
    assert (result["videos"], result["frames"], result["failed"]) == (1, 12, [])
    again = CliRunner().invoke(main, ["extract", *one, "--teacher", "null", "--cache", "cache"])
    assert json.loads(again.stdout)["frames_done"] == 0, "the same file is the same corpus"
    built = CliRunner().invoke(main, ["frames", "build", *one, "--out", "store"])
    assert built.exit_code == 0, built.output
    planned = CliRunner().invoke(
        main, ["plan", *one, "--teacher", "null", "--set", "seconds=0.1", "--set", "workers=[1]"]
    )
    assert json.loads(planned.stdout)["frames"] == {"expected": 12, "low": 12, "high": 12}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("notes.docx", "found:    a file with the extension .docx"),
        ("notes", "found:    no extension"),
        ("text.mp4", "none of 1 video"),  # extracted, and then a failed video
    ],
)
def test_a_file_that_is_no_video_is_refused(name: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("not a video")
    command = ["extract", "--videos", str(tmp_path / name), "--teacher", "null", "--quiet"]
    result = CliRunner().invoke(main, [*command, "--cache", str(tmp_path / "cache")])
    assert result.exit_code != 0
    assert expected in result.output


def test_two_samplings_at_once_are_refused(tmp_path: Path) -> None:
    command = ["plan", "--videos", str(tmp_path), "--stride", "2", "--per-video", "4"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "--stride and --per-video" in result.output


@pytest.mark.parametrize("speed", ["nan", "inf", "-inf", "0", "-1", "fast"])
def test_a_training_speed_is_a_finite_number_above_0(speed: str) -> None:
    command = ["reproduce", "table1", "--plan", "--clips-per-second", speed]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "--clips-per-second" in result.output


def test_plan_prints_a_table_or_json(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", frames=24)
    command = ["plan", "--videos", str(tmp_path), "--teacher", "null", "--quiet"]
    command += ["--set", "seconds=0.1", "--set", "workers=[1,64]", "--stride", "2"]
    text = CliRunner().invoke(main, command)
    assert text.exit_code == 0, text.output
    assert "frames       24\n" in text.output
    assert "rows         12\n" in text.output
    estimate = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert estimate["frames"] == {"expected": 24, "low": 24, "high": 24}
    assert list(estimate["hours"]) == ["1", "64"]
    assert {"float16", "int8", "topk:32"} >= estimate["logit_bytes"].keys()


@pytest.mark.parametrize("command", [["--help"], ["students"]])
def test_output_to_a_full_disk_is_one_message(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "distinit", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: the system refused an operation\n")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extract", "--fpss"], "error: No such option '--fpss'. Did you mean '--fps'?"),
        (["cache", "merge", "a", "b"], "error: Missing option '--out'."),
        (["--bar"], "error: No such option '--bar'."),
        (["nothing"], "error: No such command 'nothing'."),
        (["runs", ""], "error: empty value"),
    ],
)
def test_mistakes_in_the_command_line_are_shown_as_all_errors(
    words: list[str], message: str
) -> None:
    result = CliRunner().invoke(main, words, prog_name="distinit")
    assert (result.exit_code, result.output.splitlines()[-1]) == (2, message)
    assert result.output.startswith("Usage: distinit ")
