"""Runs with normalized features, killed or shared by processes: the student is always the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import sources
from helpers.command_line import run_command
from helpers.killing import kill_at
from helpers.torchrun import ended, launched, lines_of, written

from distinit.pipeline.students.io import NORMALIZATION_NAME, TENSORS_NAME
from distinit.pipeline.training.checkpoint import newest_step
from distinit.schemas.distill import DistillConfig
from distinit.stages.distill import distill

STEPS = 8


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of two feature teachers and one logit teacher, and its frames."""
    root = tmp_path_factory.mktemp("features")
    teachers = ("alpha", "small", "beta")
    sources.write_cache(root / "cache", teachers, target="features", targets={"beta": "logits"})
    good = {name: count for name, count in sources.FRAMES.items() if name != "bad"}
    sources.write_frames(root / "frames", good)
    return root


def config_of(inputs: Path, out: Path, **runtime: Any) -> DistillConfig:
    common = {"batch_size": 2, "shards": 2, "device": "cpu", "log_seconds": 0}
    return DistillConfig.model_validate(
        {
            "cache": str(inputs / "cache"),
            "frames": str(inputs / "frames"),
            "out": str(out),
            "student": {"name": "tiny_r2plus1d_10"},
            "clip": {"frames": 4, "crop": 16},
            "targets": [
                {"teacher": "alpha", "normalize": "phi_s", "loss": "cosine+smooth_l1"},
                {"teacher": "small", "normalize": "standardize", "loss": "cosine+mse"},
                {"teacher": "beta"},
            ],
            "optimizer": {"clips_per_epoch": 2 * STEPS, "epochs": 2},
            "runtime": common | {"checkpoint_steps": 3} | runtime,
        }
    )


@pytest.fixture(scope="module")
def whole(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run in one process."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert distill(config_of(inputs, out)).steps == STEPS
    return out


def curve(run: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines]


def assert_same(run: Path, whole: Path) -> None:
    assert curve(run) == curve(whole)
    for name in (TENSORS_NAME, NORMALIZATION_NAME):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(
    ("pattern", "step"), [(NORMALIZATION_NAME, None), ("step-0*3", 3), (TENSORS_NAME, STEPS)]
)
def test_a_killed_run_resumes_to_the_same_bytes(
    pattern: str, step: int | None, inputs: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = ["distill", *written(config_of(inputs, run), tmp_path), "--quiet"]
    kill_at(pattern, "after", command, tmp_path)
    assert newest_step(run / "checkpoints") == step
    assert not (run / "result.json").exists()
    code, output = run_command(command)
    assert code == 0, output
    assert_same(run, whole)


def test_a_resumed_run_reads_its_normalization_and_not_the_statistics(
    inputs: Path, whole: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(inputs, tmp_path / "inputs"))
    command = ["distill", *written(config_of(moved, tmp_path / "run"), tmp_path), "--quiet"]
    kill_at("step-0*3", "after", command, tmp_path)
    for name in ("alpha", "small"):
        (moved / "cache" / "teachers" / name / "statistics.safetensors").unlink()
    code, output = run_command(command)
    assert code == 0, output
    assert_same(tmp_path / "run", whole)


@pytest.mark.timeout(600)
def test_two_ranks_of_torchrun_train_the_student_of_one_process(
    inputs: Path, whole: Path, tmp_path: Path
) -> None:
    arguments = written(config_of(inputs, tmp_path / "run", workers=2), tmp_path)
    with launched(tmp_path, "distill", *arguments, "--quiet") as process:
        code, output = ended(process)
    assert code == 0, (output, lines_of(tmp_path, 0))
    assert_same(tmp_path / "run", whole)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_two_ray_workers_train_the_student_of_one_process(
    inputs: Path, whole: Path, tmp_path: Path, ray_session: None
) -> None:
    distill(config_of(inputs, tmp_path / "run", workers=2))
    assert_same(tmp_path / "run", whole)
