"""The training loop: interruptions and loader threads do not change the curve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import toys
from helpers.progress import RecordingProgress
from helpers.toys import curve_of

from distinit.pipeline.lock import WriterLock
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.training.loop import refuse_bf16_on_cpu, train
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.schemas.errors import CheckpointError, ComputeError, ConfigError, LockedError
from distinit.schemas.training import RuntimeConfig


class KilledError(Exception):
    pass


def killed_after(task: Any, loads: int) -> Any:
    """The task, changed to raise KilledError after ``loads`` batches."""
    inner, count = task.load, [0]

    def load(epoch: int, samples: np.ndarray) -> Any:
        count[0] += 1
        if count[0] > loads:
            raise KilledError
        return inner(epoch, samples)

    task.load = load
    return task


def test_a_run_writes_its_files_and_learns(run: RunDirectory) -> None:
    recorder = RecordingProgress()
    outcome = train(toys.ToyTask(), toys.make_settings({"epochs": 30}), run, recorder)
    lines = run.read_metrics()
    assert [line["step"] for line in lines] == list(range(1, 121))
    assert lines[-1]["clips"] == lines[-1]["clips_total"] == 480
    assert lines[-1]["epoch"] == 30
    first, last = (np.mean([m["loss"] for m in part]) for part in (lines[:8], lines[-8:]))
    assert last < first
    assert 0 <= lines[-1]["accuracy"] <= 1
    assert outcome.loss == lines[-1]["epoch_loss"]
    assert outcome.loss == sum(line["loss"] for line in lines[-4:]) / 4
    assert [line["step"] for line in lines if "epoch_loss" in line] == list(range(4, 121, 4))
    assert outcome.global_steps == 120
    assert not outcome.student.training
    assert run.loss_plot.read_bytes()[:4] == b"\x89PNG"
    assert list(run.tensorboard.glob("events*"))
    assert recorder.started == [("training", 480, "clips", 0)]
    assert recorder.advanced == 480


def test_the_learning_rate_decays_in_steps(run: RunDirectory) -> None:
    settings = toys.make_settings(
        {"epochs": 4, "step_epochs": 2, "learning_rate": 0.01}, {"shards": 2, "batch_size": 4}
    )
    train(toys.ToyTask(), settings, run, NullProgress())
    rates = [m["learning_rate"] for m in run.read_metrics()]
    assert rates == pytest.approx([0.02] * 4 + [0.002] * 4)


ADAMW = {"name": "adamw", "learning_rate": 0.01, "schedule": "cosine", "warmup_epochs": 1}


@pytest.mark.parametrize(
    ("optimizer", "loads"),
    [({}, 1), ({}, 5), ({}, 8), ({}, 9), ({}, 11), (ADAMW, 1), (ADAMW, 5), (ADAMW, 8)],
)
def test_resumed_curve_and_weights_equal_the_uninterrupted_ones(
    tmp_path: Path, optimizer: dict[str, Any], loads: int
) -> None:
    settings = toys.make_settings(optimizer, {"checkpoint_steps": 2})
    whole = toys.make_run(tmp_path / "whole")
    expected = train(toys.ToyTask(dropout=0.3), settings, whole, NullProgress())
    cut = toys.make_run(tmp_path / "cut")
    with pytest.raises(KilledError):
        train(killed_after(toys.ToyTask(dropout=0.3), loads), settings, cut, NullProgress())
    found = train(toys.ToyTask(dropout=0.3), settings, cut, NullProgress())
    assert curve_of(cut) == curve_of(whole)
    for name, tensor in expected.student.state_dict().items():
        assert torch.equal(found.student.state_dict()[name], tensor), name


def test_resuming_in_the_middle_of_a_metric_window(tmp_path: Path) -> None:
    settings = toys.make_settings(runtime={"checkpoint_steps": 1, "log_seconds": 1e9})
    whole, cut = (toys.make_run(tmp_path / name) for name in ("whole", "cut"))
    train(toys.ToyTask(), settings, whole, NullProgress())
    with pytest.raises(KilledError):
        train(killed_after(toys.ToyTask(), 6), settings, cut, NullProgress())
    train(toys.ToyTask(), settings, cut, NullProgress())
    assert [step for step, _, _ in curve_of(whole)] == [4, 8, 12]
    assert curve_of(cut) == curve_of(whole)
    assert cut.read_metrics()[-1]["epoch_loss"] == whole.read_metrics()[-1]["epoch_loss"]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_curve_does_not_depend_on_loader_threads(tmp_path: Path, threads: int) -> None:
    curves = []
    for loaders in (0, threads):
        run = toys.make_run(tmp_path / str(loaders))
        settings = toys.make_settings(runtime={"loader_workers": loaders, "shards": 2})
        train(toys.ToyTask(), settings, run, NullProgress())
        curves.append(curve_of(run))
    assert curves[0] == curves[1]
    assert len(curves[0]) == 6


def test_a_damaged_checkpoint_falls_back_and_the_curve_is_the_same(tmp_path: Path) -> None:
    settings = toys.make_settings(runtime={"checkpoint_steps": 2})
    whole, cut = (toys.make_run(tmp_path / name) for name in ("whole", "cut"))
    train(toys.ToyTask(), settings, whole, NullProgress())
    with pytest.raises(KilledError):
        train(killed_after(toys.ToyTask(), 7), settings, cut, NullProgress())
    newest = sorted(cut.checkpoints.iterdir())[-1] / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\0")
    recorder = RecordingProgress()
    train(toys.ToyTask(), settings, cut, recorder)
    assert "skipping a damaged checkpoint" in recorder.messages[0]
    assert "resuming after step 4" in recorder.messages[1]
    assert curve_of(cut) == curve_of(whole)


def test_a_finished_training_is_not_trained_again(run: RunDirectory) -> None:
    first = train(toys.ToyTask(), toys.make_settings(), run, NullProgress())
    again = train(killed_after(toys.ToyTask(), 0), toys.make_settings(), run, NullProgress())
    assert (again.loss, again.global_steps) == (first.loss, first.global_steps)


def test_lost_metric_lines_of_a_finished_training_can_be_restored_as_advised(
    run: RunDirectory,
) -> None:
    settings = toys.make_settings({"epochs": 2}, {"checkpoint_steps": 3})
    first = train(toys.ToyTask(), settings, run, NullProgress())
    # As after a power failure: checkpoints are synced, metric lines are not.
    run.metrics.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="metric lines are lost") as raised:
            train(toys.ToyTask(), settings, run, NullProgress())
    (advised,) = [path for path in run.checkpoints.iterdir() if str(path) in str(raised.value)]
    shutil.rmtree(advised)
    again = train(toys.ToyTask(), settings, run, NullProgress())
    assert (again.loss, again.global_steps) == (first.loss, first.global_steps)


def test_an_epoch_shorter_than_one_step_is_refused(run: RunDirectory) -> None:
    with pytest.raises(ConfigError, match="fewer clips than one step"):
        train(
            toys.ToyTask(count=7),
            toys.make_settings(None, {"shards": 2}),
            run,
            NullProgress(),
        )


def test_shards_must_be_divisible_by_workers(run: RunDirectory) -> None:
    settings = toys.make_settings(runtime={"shards": 3, "workers": 2})
    with pytest.raises(ConfigError, match="divisible"):
        train(toys.ToyTask(), settings, run, NullProgress())


def test_divergence_is_an_error_and_is_not_saved(run: RunDirectory) -> None:
    settings = toys.make_settings({"learning_rate": 1e38}, {"checkpoint_steps": 1})
    with pytest.raises(ComputeError, match="not a finite number"):
        train(toys.ToyTask(norm=False), settings, run, NullProgress())
    losses = [json.loads(line)["loss"] for line in run.metrics.read_text().splitlines()]
    assert np.isfinite(losses).all()


def test_only_one_process_can_train_a_run(run: RunDirectory) -> None:
    with WriterLock(run.root / ".lock"), pytest.raises(LockedError):
        train(toys.ToyTask(), toys.make_settings(), run, NullProgress())


@pytest.mark.parametrize(
    ("runtime", "refused"),
    [
        ({"device": "cpu"}, True),
        ({"workers": 1}, True),  # workers without GPUs compute on a CPU
        ({"workers": 1, "gpus_per_worker": 1}, False),
        ({"device": "cpu", "precision": "fp32"}, False),
    ],
)
def test_bf16_is_refused_on_a_cpu_unless_the_run_is_finished(
    runtime: dict[str, Any], refused: bool, tmp_path: Path
) -> None:
    config = RuntimeConfig.model_validate({"precision": "bf16", **runtime})
    if refused:
        with pytest.raises(ConfigError, match="training in bf16 needs a GPU"):
            refuse_bf16_on_cpu(tmp_path, config)
        (tmp_path / "result.json").touch()
    refuse_bf16_on_cpu(tmp_path, config)
