"""A signal during training: a checkpoint of the last step, and the same student afterwards."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import toys
from helpers.progress import RecordingProgress
from helpers.toys import curve_of
from numpy.typing import NDArray

from distinit.pipeline.interruption import Interrupted
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.training.checkpoint import newest_step
from distinit.pipeline.training.loop import TrainingOutcome, train
from distinit.pipeline.training.ray_notes import Notes
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.pipeline.training.stopping import TrainingStoppedError
from distinit.pipeline.training.task import ClipBatch
from distinit.schemas.errors import ComputeError, ConfigError
from distinit.schemas.evaluation import ScoredSubset

STEPS = 12  # 3 epochs of 16 samples in batches of 4


@dataclass
class SignalledTask(toys.ToyTask):
    """Sends signals to its own process while it loads one of its batches."""

    at_load: int = 0
    numbers: tuple[int, ...] = ()
    loads: int = 0

    def load(self, epoch: int, samples_B: NDArray[np.int64]) -> ClipBatch:
        if self.loads == self.at_load:
            for number in self.numbers:
                os.kill(os.getpid(), number)
        self.loads += 1
        return super().load(epoch, samples_B)


def signalled(at_load: int, *numbers: int) -> SignalledTask:
    return SignalledTask(at_load=at_load, numbers=numbers)


def fit(task: toys.ToyTask, run: RunDirectory, evaluator: Any = None) -> TrainingOutcome:
    return train(task, toys.make_settings(), run, NullProgress(), evaluator)


def check_same(run: RunDirectory, tmp_path: Path) -> None:
    """Finish ``run``: nothing differs from an undisturbed run."""
    whole = toys.make_run(tmp_path / "whole")
    expected = fit(toys.ToyTask(), whole).student.state_dict()
    found = fit(toys.ToyTask(), run).student.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert curve_of(run) == curve_of(whole)
    assert len(curve_of(run)) == STEPS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [0, 4, 6, STEPS - 1])
def test_a_signal_writes_a_checkpoint_after_the_step_and_names_it(
    step: int, number: int, run: RunDirectory, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted) as caught:
        fit(signalled(step, number), run)
    done = step + 1
    assert caught.value.message == (
        f"stopped at step {done} of {STEPS}; checkpoint written; rerun the same command to resume"
    )
    assert caught.value.exit_code == 128 + number
    assert newest_step(run.checkpoints) == done
    assert [line[0] for line in curve_of(run)] == list(range(1, done + 1))
    check_same(run, tmp_path)


def test_the_user_is_told_that_training_is_stopping(run: RunDirectory) -> None:
    progress = RecordingProgress()
    with pytest.raises(Interrupted):
        train(signalled(3, signal.SIGINT), toys.make_settings(), run, progress)
    said = "stopping after this step, with a checkpoint; Ctrl-C again stops at once"
    assert progress.messages == [said]


def test_a_second_signal_stops_at_once_without_a_checkpoint(
    run: RunDirectory, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted) as caught:
        fit(signalled(6, signal.SIGTERM, signal.SIGINT), run)
    assert (caught.value.message, caught.value.exit_code) == (None, 130)
    assert newest_step(run.checkpoints) is None
    check_same(run, tmp_path)


class Evaluator:
    """Sends SIGINT to its own process when it evaluates."""

    every = 1
    subset: ScoredSubset = "test"

    def evaluate(self, *_: Any) -> dict[str, int | float]:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the evaluation goes on")


def test_a_signal_during_an_evaluation_ends_it_at_once_after_its_checkpoint(
    run: RunDirectory, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted, match=r"stopped at step 4 of 12; checkpoint written") as caught:
        fit(toys.ToyTask(), run, Evaluator())
    assert caught.value.exit_code == 130
    assert newest_step(run.checkpoints) == 4
    check_same(run, tmp_path)


def test_nothing_trained_needs_no_checkpoint() -> None:
    text = TrainingStoppedError(0, None).text
    assert text == "stopped before the first step; rerun the same command to begin"


def test_the_notes_of_ray_workers_carry_a_stop_and_an_error(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    notes.raise_ending()
    with notes.following(is_main=True) as stop:
        notes.ask_to_stop()
        wait_for(stop.is_set)
    assert not notes.has_ended()
    notes.write_ending(TrainingStoppedError(1234, 5000))
    assert (notes.has_stopped(), notes.has_ended()) == (True, True)
    with pytest.raises(TrainingStoppedError) as stopped:
        notes.raise_ending()
    assert stopped.value.text.startswith("stopped at step 1,234 of 5,000; checkpoint written; ")
    notes.clear()
    assert list(tmp_path.iterdir()) == []
    notes.write_ending(ConfigError("bad", found=3, remedy="repair it"))
    with pytest.raises(ConfigError) as refused:
        notes.raise_ending()
    assert (refused.value.problem, refused.value.found) == ("bad", "3")
    (tmp_path / "refusal.json").write_text('{"class": "ExitCode", "problem": "x"}')
    with pytest.raises(ComputeError, match="x"):
        notes.raise_ending()


def wait_for(condition: Callable[[], bool]) -> None:
    flag = threading.Event()
    for _ in range(600):
        if condition():
            return
        flag.wait(0.1)
    pytest.fail("waited too long")
