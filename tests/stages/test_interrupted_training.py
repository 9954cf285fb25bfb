"""`distinit distill` as a process of its own that gets SIGINT or SIGTERM in mid-training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import marked_by
from helpers.short_distills import extract_null, short_distill

from distinit.pipeline.training.checkpoint import newest_step
from distinit.schemas.distill import DistillConfig
from distinit.schemas.exit_codes import ExitCode
from distinit.stages.distill import distill
from distinit.stages.runs import list_runs

STEPS = 160
MARK = "DISTINIT_TEST_MARK"


@pytest.fixture(scope="module")
def extracted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_null(corpus, tmp_path_factory.mktemp("extracted"))


def config(extracted: Path, out: Path, **runtime: Any) -> DistillConfig:
    return short_distill(extracted, out, STEPS, **runtime)


@pytest.fixture(scope="module")
def whole(extracted: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The student file of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert distill(config(extracted, out)).steps == STEPS
    return (out / "student.safetensors").read_bytes()


def interrupt(config: DistillConfig, folder: Path, number: int) -> tuple[int, str]:
    """Run the command, and send it a signal after some steps: (exit code, last line of stderr)."""
    file = folder / "config.yaml"
    file.write_text(config.model_dump_json())  # JSON is YAML
    process = subprocess.Popen(
        [sys.executable, "-m", "distinit.cli", "distill", "--config", str(file), "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {MARK: str(folder)},
    )
    metrics = Path(config.out) / "metrics.jsonl"
    try:
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < 5:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=270)
    finally:
        process.kill()
        process.communicate()
    assert out == ""
    return process.returncode, err.splitlines()[-1]


def check_stopped(out: Path, ended: tuple[int, str], code: ExitCode) -> None:
    step = newest_step(out / "checkpoints")
    assert step is not None
    assert 5 <= step < STEPS
    assert ended == (
        code,
        f"stopped at step {step} of {STEPS}; checkpoint written; rerun the same command to resume",
    )
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, step + 1))
    (listed,) = list_runs(out).runs
    assert (listed.state, listed.checkpoint_step) == ("resumable", step)
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_loses_nothing_and_the_same_command_gives_the_same_student(
    number: int, extracted: Path, whole: bytes, tmp_path: Path
) -> None:
    interrupted = config(extracted, tmp_path / "run")
    ended = interrupt(interrupted, tmp_path, number)
    check_stopped(tmp_path / "run", ended, ExitCode(128 + number))
    distill(interrupted)
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == whole


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_signal_to_the_driver_stops_its_ray_workers_with_a_checkpoint(
    extracted: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = interrupt(config(extracted, out, workers=2), tmp_path, signal.SIGTERM)
    check_stopped(out, ended, ExitCode.TERMINATED)
    while marked_by(MARK, str(tmp_path)):  # a process that stays ends the test by its timeout
        time.sleep(0.1)
    distill(config(extracted, out))
    assert (out / "student.safetensors").read_bytes() == whole
