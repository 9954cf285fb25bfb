"""Evaluation during training: when it happens, and that it changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers.progress import RecordingProgress
from helpers.toys import ToyTask, make_run, make_settings

from distinit.pipeline.progress import NullProgress
from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.collective import Collective
from distinit.pipeline.training.loop import train
from distinit.pipeline.training.metric_logger import log_final_evaluation
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.evaluation import ScoredSubset


class WeightSum:
    """Its metric is the sum of all weights. It draws random numbers and changes the mode."""

    def __init__(
        self, every: int, fails_at: int | None = None, subset: ScoredSubset = "test"
    ) -> None:
        self.every, self.fails_at, self.subset = every, fails_at, subset
        self.calls = 0

    def evaluate(
        self, student: Student, collective: Collective, device: torch.device
    ) -> dict[str, int | float]:
        self.calls += 1
        if self.calls == self.fails_at:
            raise FrameStoreError("a stored frame is not a readable JPEG")
        torch.rand(3)
        student.eval()
        return {"top1": sum(p.detach().double().sum().item() for p in student.parameters())}


def weights_of(run: RunDirectory) -> dict[str, bytes]:
    """The bytes of the newest checkpoint."""
    newest = max(run.checkpoints.iterdir())
    return {p.name: p.read_bytes() for p in newest.iterdir() if p.suffix == ".safetensors"}


def test_evaluations_change_no_bit_of_the_training(tmp_path: Path) -> None:
    settings = make_settings({"epochs": 5})
    plain, evaluated = make_run(tmp_path / "plain"), make_run(tmp_path / "evaluated")
    evaluator, progress = WeightSum(2), RecordingProgress()
    train(ToyTask(dropout=0.3), settings, plain, NullProgress())
    train(ToyTask(dropout=0.3), settings, evaluated, progress, evaluator)
    assert evaluator.calls == 2
    lines = evaluated.read_evaluations()
    assert [(line["step"], line["epoch"]) for line in lines] == [(8, 2), (16, 4)]
    assert lines[0]["top1"] != lines[1]["top1"]
    assert weights_of(plain) == weights_of(evaluated)
    losses = [[line["loss"] for line in run.read_metrics()] for run in (plain, evaluated)]
    assert losses[0] == losses[1]
    assert progress.messages == [
        "evaluating after epoch 2",
        f"after epoch 2: top-1 {lines[0]['top1']:.1f}",
        "evaluating after epoch 4",
        f"after epoch 4: top-1 {lines[1]['top1']:.1f}",
    ]
    assert plain.read_evaluations() == []


def test_the_last_epoch_is_left_to_the_evaluation_at_the_end(tmp_path: Path) -> None:
    run, evaluator = make_run(tmp_path / "run"), WeightSum(1)
    train(ToyTask(), make_settings({"epochs": 3}), run, NullProgress(), evaluator)
    assert evaluator.calls == 2
    curve = run.loss_plot.read_bytes()
    for top1 in (11.0, 12.0):  # repeated after a kill
        log_final_evaluation(run, 3, {"top1": top1})
    assert [(line["step"], line["epoch"]) for line in run.read_evaluations()] == [
        (4, 1),
        (8, 2),
        (12, 3),
    ]
    assert run.read_evaluations()[-1]["top1"] == 12.0
    assert run.loss_plot.read_bytes() != curve


@pytest.mark.parametrize("fails_at", [1, 2])
def test_an_evaluation_that_was_killed_is_repeated_and_no_other(
    tmp_path: Path, fails_at: int
) -> None:
    settings = make_settings({"epochs": 4})
    whole, cut = make_run(tmp_path / "whole"), make_run(tmp_path / "cut")
    train(ToyTask(), settings, whole, NullProgress(), WeightSum(1))
    with pytest.raises(FrameStoreError):
        train(ToyTask(), settings, cut, NullProgress(), WeightSum(1, fails_at))
    again = WeightSum(1)
    train(ToyTask(), settings, cut, NullProgress(), again)
    assert again.calls == 3 - (fails_at - 1)
    assert cut.read_evaluations() == whole.read_evaluations()
    assert weights_of(cut) == weights_of(whole)
    finished = WeightSum(1)
    train(ToyTask(), settings, cut, NullProgress(), finished)
    assert finished.calls == 0


def test_evaluations_of_steps_that_are_repeated_are_repeated(tmp_path: Path) -> None:
    settings = make_settings({"epochs": 3}, {"keep_checkpoints": 3})
    run = make_run(tmp_path / "run")
    train(ToyTask(), settings, run, NullProgress(), WeightSum(1))
    expected = run.read_evaluations()
    first, *others = sorted(run.checkpoints.iterdir())
    assert first.name == "step-000000004"
    for path in others:
        shutil.rmtree(path)
    again = WeightSum(1)
    train(ToyTask(), settings, run, NullProgress(), again)
    assert again.calls == 1
    assert run.read_evaluations() == expected
