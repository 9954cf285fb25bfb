"""``distill`` with vocabularies: killed runs, changed files, moved files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import sources
from helpers.command_line import run_command
from helpers.killing import kill_at
from helpers.torchrun import written
from helpers.vocabularies import make_vocabulary

from distinit.pipeline.students.io import TENSORS_NAME
from distinit.pipeline.training.checkpoint import newest_step
from distinit.schemas.distill import DistillConfig

STEPS = 8


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of features, its frames, and two vocabularies."""
    root = tmp_path_factory.mktemp("vocabularies")
    sources.write_cache(root / "cache", ("alpha",), target="features")
    good = {name: count for name, count in sources.FRAMES.items() if name != "bad"}
    sources.write_frames(root / "frames", good)
    make_vocabulary(root / "birds.safetensors", 7, scale=8.0)
    make_vocabulary(root / "trees.safetensors", 7, names=3, seed=1, scale=8.0)
    return root


def command_of(inputs: Path, run: Path, birds: Path | None = None) -> list[str]:
    """Two heads, one for each vocabulary; the first learns from the more confident 60 %."""
    config = DistillConfig.model_validate(
        {
            "cache": str(inputs / "cache"),
            "frames": str(inputs / "frames"),
            "out": str(run),
            "student": {"name": "tiny_r2plus1d_10"},
            "clip": {"frames": 4, "crop": 16},
            "targets": [
                {"filter": {"keep_fraction": 0.6}, "pick": "all"},
                {"vocabulary": str(inputs / "trees.safetensors")},
            ],
            "optimizer": {"clips_per_epoch": 2 * STEPS, "epochs": 2},
            "runtime": {"batch_size": 2, "shards": 2, "device": "cpu", "checkpoint_steps": 3},
        }
    )
    setting = f"targets.0.vocabulary={birds or inputs / 'birds.safetensors'}"
    return ["distill", *written(config, run.parent), "--set", setting, "--quiet"]


@pytest.fixture(scope="module")
def whole(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    code, output = run_command(command_of(inputs, run))
    assert code == 0, output
    return run


def assert_same(run: Path, whole: Path) -> None:
    for name in (TENSORS_NAME, "thresholds.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(("pattern", "step"), [("thresholds.json", None), ("step-0*3", 3)])
def test_a_killed_run_resumes_to_the_same_bytes(
    pattern: str, step: int | None, inputs: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = command_of(inputs, run)
    kill_at(pattern, "after", command, tmp_path)
    assert newest_step(run / "checkpoints") == step
    code, output = run_command(command)
    assert code == 0, output
    assert_same(run, whole)


def test_a_run_continues_with_a_vocabulary_that_was_moved(
    inputs: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    kill_at("step-0*3", "after", command_of(inputs, run), tmp_path)
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "birds.safetensors"
    shutil.copy(inputs / "birds.safetensors", moved)
    code, output = run_command(command_of(inputs, run, moved))
    assert code == 0, output
    assert_same(run, whole)


def test_a_run_refuses_a_vocabulary_that_was_changed(inputs: Path, tmp_path: Path) -> None:
    run, birds = tmp_path / "run", tmp_path / "birds.safetensors"
    make_vocabulary(birds, 7, scale=8.0)
    kill_at("step-0*3", "after", command_of(inputs, run, birds), tmp_path)
    before = (run / "run.json").read_bytes()
    make_vocabulary(birds, 7, scale=9.0)
    code, output = run_command(command_of(inputs, run, birds))
    assert code == 1, output
    assert "belongs to another configuration" in output
    assert "inputs.vocabulary alpha@birds: " in output
    assert "Traceback" not in output
    assert (run / "run.json").read_bytes() == before
    assert newest_step(run / "checkpoints") == 3
