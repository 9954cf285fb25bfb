"""`torchrun … -m distinit.cli distill` and `finetune`: two real processes, without Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import marked_by
from helpers.short_distills import extract_null, short_distill
from helpers.torchrun import MARK, ended, launched, lines_of, written

from distinit.pipeline.training.checkpoint import newest_step
from distinit.schemas.distill import DistillConfig
from distinit.schemas.finetune import FinetuneConfig
from distinit.stages.distill import distill
from distinit.stages.finetune import finetune

STEPS = 80
SKIPPED = {"targets": [{"filter": {"keep_fraction": 0.5}}], "skip_filtered": True}
PLUGIN = """
import os

assert os.environ["RANK"] == "0"

from distinit.pipeline.students.tiny import TINY_STUDENTS
net = TINY_STUDENTS["tiny_r2plus1d_10"]
"""
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def extracted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_null(corpus, tmp_path_factory.mktemp("extracted"))


def config(extracted: Path, out: Path, **runtime: Any) -> DistillConfig:
    return short_distill(extracted, out, STEPS, **runtime)


@pytest.fixture(scope="module")
def whole(extracted: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The student file of an undisturbed run in one process."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert distill(config(extracted, out)).steps == STEPS
    return student(out)


def without_workers(config: DistillConfig) -> DistillConfig:
    runtime = config.runtime.model_copy(update={"workers": 0})
    return config.model_copy(update={"runtime": runtime})


def student(out: Path) -> bytes:
    return (out / "student.safetensors").read_bytes()


def wait_for_steps(process: subprocess.Popen[str], out: Path, steps: int = 5) -> None:
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < steps:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize("skip", [False, True])
def test_two_processes_train_the_student_of_one(
    skip: bool, extracted: Path, whole: bytes, tmp_path: Path
) -> None:
    values = config(extracted, tmp_path / "run", workers=2)
    steps = STEPS
    if skip:
        filtered = DistillConfig.model_validate(values.model_dump() | SKIPPED)
        alone = filtered.model_copy(update={"out": str(tmp_path / "alone")})
        steps = distill(without_workers(alone)).steps
        assert steps < STEPS
        values, whole = filtered, student(tmp_path / "alone")
    arguments = written(values, tmp_path)
    with launched(tmp_path, "distill", *arguments, "--json") as process:
        code, output = ended(process)
    assert code == 0, (output, lines_of(tmp_path, 0))
    assert student(tmp_path / "run") == whole
    assert json.loads("\n".join(lines_of(tmp_path, 0, "stdout")))["steps"] == steps
    assert (lines_of(tmp_path, 1), lines_of(tmp_path, 1, "stdout")) == ([], [])
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == steps


def test_a_killed_launch_resumes_to_the_same_student(
    extracted: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = written(config(extracted, out, checkpoint_steps=3), tmp_path)
    with launched(tmp_path, "distill", *arguments) as process:
        wait_for_steps(process, out)
    assert not marked_by(MARK, str(tmp_path))
    assert (newest_step(out / "checkpoints") or 0) >= 3
    (tmp_path / "again").mkdir()
    with launched(tmp_path / "again", "distill", *arguments) as process:
        code, output = ended(process)
    assert code == 0, (output, lines_of(tmp_path / "again", 0))
    assert student(out) == whole


def test_the_processes_end_if_only_torchrun_is_killed(extracted: Path, tmp_path: Path) -> None:
    arguments = written(config(extracted, tmp_path / "run"), tmp_path)
    with launched(tmp_path, "distill", *arguments) as process:
        wait_for_steps(process, tmp_path / "run")
        process.kill()
        while marked_by(MARK, str(tmp_path)):  # a process that stays ends the test by its timeout
            time.sleep(0.1)
    lines = lines_of(tmp_path, 0)
    assert "error: a process of this training has ended" in lines
    assert "Traceback" not in "\n".join(lines)


def test_the_death_of_one_process_is_one_message(extracted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = written(config(extracted, out), tmp_path)
    with launched(tmp_path, "distill", *arguments, "--quiet") as process:
        wait_for_steps(process, out)
        found = marked_by(MARK, str(tmp_path)).keys() & marked_by("RANK", "1").keys()
        (second,) = found
        os.kill(second, signal.SIGKILL)
        ended(process)
    lines = lines_of(tmp_path, 0)
    assert lines[0] == "error: a process of this training has ended"
    assert lines[-1].strip().endswith("rerun the same command to resume from the last checkpoint")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_writes_a_checkpoint(
    number: int, extracted: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = written(config(extracted, out), tmp_path)
    with launched(tmp_path, "distill", *arguments, "--quiet") as process:
        wait_for_steps(process, out)
        for pid in marked_by(MARK, str(tmp_path)):  # Slurm sends it to all, and so does torchrun
            os.kill(pid, number)
        _, output = ended(process)
    step = newest_step(out / "checkpoints")
    assert step is not None
    assert 5 <= step < STEPS
    stopped = f"stopped at step {step} of {STEPS}; checkpoint written; "
    assert lines_of(tmp_path, 0) == [stopped + "rerun the same command to resume"]
    assert lines_of(tmp_path, 1) == []
    assert "SIGKILL" not in output
    distill(config(extracted, out))  # in one process
    assert student(out) == whole


def test_an_error_of_any_rank_is_one_message_and_the_exit_code_of_all(
    extracted: Path, tmp_path: Path
) -> None:
    """The plugin of the student cannot be imported by rank 1."""
    (tmp_path / "one_rank.py").write_text(PLUGIN)
    values = config(extracted, tmp_path / "run").model_dump(mode="json")
    values["student"]["name"] = "plugin:one_rank:net"
    arguments = written(DistillConfig.model_validate(values), tmp_path)
    with launched(tmp_path, "distill", *arguments, "--quiet") as process:
        _, output = ended(process)
    lines = lines_of(tmp_path, 0)
    assert lines[0].startswith("error: ")
    assert "one_rank" in lines[0]
    assert "Traceback" not in "\n".join(lines)
    assert lines_of(tmp_path, 1) == []
    assert "exitcode  : 2 " in output
    assert "exitcode  : 1 " not in output


@pytest.mark.parametrize(
    ("command", "arguments", "text"),
    [
        ("extract", [], "torchrun has started several processes of `distinit extract`"),
        ("distill", ["--workers", "3"], "torchrun has started another number of processes than"),
    ],
)
def test_what_torchrun_cannot_run_is_refused(
    command: str, arguments: list[str], text: str, tmp_path: Path
) -> None:
    if command == "distill":
        arguments = [*arguments, "--cache", "c", "--frames", "f", "--out", "o"]
        arguments += ["--student", "tiny_r2plus1d_10"]
    with launched(tmp_path, command, *arguments) as process:
        _, output = ended(process)
    assert output.count("exitcode  : 2 ") >= 1
    lines = lines_of(tmp_path, 0)
    assert lines[0].startswith(f"error: {text}")
    assert "Traceback" not in "\n".join(lines)
    assert lines_of(tmp_path, 1) == []


def test_finetune_evaluates_during_and_after_training(
    configure: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    runtime = {"batch_size": 4, "shards": 2, "device": "cpu", "log_seconds": 0}
    values: dict[str, Any] = {"runtime": runtime, "eval_every": 1}
    alone = configure(tmp_path / "alone", **values)
    result = finetune(alone)
    together = configure(tmp_path / "together", **values)
    with launched(tmp_path, "finetune", *written(together, tmp_path)) as process:
        code, output = ended(process)
    assert code == 0, (output, lines_of(tmp_path, 0))
    assert student(tmp_path / "together") == student(tmp_path / "alone")
    assert finetune(together).evaluation == result.evaluation
    evaluations = [
        (tmp_path / name / "evaluations.jsonl").read_text() for name in ("alone", "together")
    ]
    assert evaluations[0] == evaluations[1]
    assert lines_of(tmp_path, 1) == []
