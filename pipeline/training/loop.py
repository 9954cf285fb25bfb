"""Runs a training to its end: in this process, in those of torchrun, or on Ray Train workers."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.compute.torchrun import Launch, launched
from distinit.pipeline.interruption import Interrupted, stop_on_signals
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.progress import Progress
from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.checkpoint import newest_step
from distinit.pipeline.training.collective import SingleProcess
from distinit.pipeline.training.ray_train import fit_on_ray
from distinit.pipeline.training.run_dir import RunDirectory, is_finished
from distinit.pipeline.training.step_time import bottleneck
from distinit.pipeline.training.stopping import TrainingStoppedError
from distinit.pipeline.training.task import Evaluator, TrainingSettings, TrainingTask
from distinit.pipeline.training.torchrun_train import fit_with_peers
from distinit.pipeline.training.trainer import checkpoints_of, fit
from distinit.schemas.errors import CheckpointError, ConfigError
from distinit.schemas.training import RuntimeConfig

__all__ = ["TrainingOutcome", "refuse_bf16_on_cpu", "train"]

_STOPPING = "stopping after this step, with a checkpoint"
_AT_ONCE = "; Ctrl-C again stops at once"
_ALL_STEPS_DONE = "stopped after the last training step; rerun the same command to resume"


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """The trained student, and how training went."""

    student: Student
    """On the CPU, in evaluation mode."""
    loss: float
    """Mean loss of the last epoch."""
    bottleneck: str
    """The largest part of a step's time, in one line."""
    global_steps: int
    seconds: float
    """Duration in this process; a resumed run counts from where it resumed."""
    resumed_step: int = 0
    """Steps that earlier processes had done; this one did the others."""


def refuse_bf16_on_cpu(out: Path, runtime: RuntimeConfig) -> None:
    """Raise ConfigError for training in bf16 without a GPU, unless the run ``out`` is finished.

    With torch 2.15, the gradient of the weights of a temporal convolution with 45 input channels
    contains uninitialised memory on a CPU, often NaN.
    """
    if runtime.precision != "bf16" or is_finished(out):
        return
    if runtime.workers:
        on_cpu = runtime.gpus_per_worker == 0
    else:
        on_cpu = resolve_device(runtime.device).type == "cpu"
    if on_cpu:
        raise ConfigError(
            "training in bf16 needs a GPU: on a CPU, torch computes wrong gradients",
            expected="--precision fp32 on a CPU",
            found="bf16",
            remedy="add --precision fp32, or train on a GPU (with --workers: --gpus-per-worker 1)",
        )


def train(
    task: TrainingTask,
    settings: TrainingSettings,
    run: RunDirectory,
    progress: Progress,
    evaluator: Evaluator | None = None,
) -> TrainingOutcome:
    """Train until the last epoch, resuming from the run's newest intact checkpoint.

    ``evaluator``: what evaluates the student after some of the epochs, but not after the last.

    With ``runtime.workers`` 0 everything happens in this process, or in those that torchrun has
    started, of which this is rank 0; otherwise ``task`` is pickled and rebuilt on every Ray Train
    worker. All compute the same result.

    In the main thread, SIGINT and SIGTERM end training after the current step, with a checkpoint:
    Interrupted is raised. A second signal raises it at once; under torchrun it is ignored.

    Raises ConfigError, CheckpointError, StorageError, ComputeError, LockedError (another process
    trains in this run directory), and what the task raises.
    """
    began = time.monotonic()
    runtime, launch = settings.runtime, launched()
    _refuse_uneven(runtime, launch)
    text = _STOPPING if launch else _STOPPING + _AT_ONCE
    signals = stop_on_signals(progress.message, text, once=launch is not None)
    with WriterLock(run.root / ".lock"), signals as stop:
        run.refuse_replaced()
        resumed_step = newest_step(run.checkpoints) or 0
        try:
            if runtime.workers:
                fit_on_ray(task, settings, run, progress, stop, evaluator)
            elif launch is not None and launch.world_size > 1:
                fit_with_peers(task, settings, run, progress, stop, evaluator, launch)
            else:
                device = resolve_device(runtime.device)
                fit(task, settings, run, SingleProcess(), device, progress, stop, evaluator)
        except TrainingStoppedError as stopped:
            raise Interrupted(stop.signal_number or signal.SIGINT, stopped.text) from None
        if stop.signal_number is not None:  # too late for the trainer to see it
            raise Interrupted(stop.signal_number, _ALL_STEPS_DONE)
    outcome = _outcome(task, settings, run, progress, time.monotonic() - began)
    return replace(outcome, resumed_step=resumed_step)


def _refuse_uneven(runtime: RuntimeConfig, launch: Launch | None) -> None:
    """Raise ConfigError unless all workers have equally many shards."""
    workers = runtime.workers or (1 if launch is None else launch.world_size)
    if runtime.shards % workers:
        raise ConfigError(
            "the shards cannot be spread evenly over the workers",
            expected="runtime.shards divisible by "
            + ("runtime.workers" if runtime.workers else "the number of processes"),
            found=f"{runtime.shards} shards, {workers} workers",
            remedy=f"--set runtime.shards={workers} (global batch = batch_size x shards)",
        )


def _outcome(
    task: TrainingTask,
    settings: TrainingSettings,
    run: RunDirectory,
    progress: Progress,
    seconds: float,
) -> TrainingOutcome:
    student = task.build()
    found = checkpoints_of(run, settings).load_latest(student, None, progress.message)
    if found is None:
        raise CheckpointError(
            f"training left no checkpoint in {run.checkpoints}",
            remedy="rerun the same command",
        )
    line = run.last_metric()
    if line is None:
        raise CheckpointError(
            f"training is finished, but its metric lines are lost: {run.metrics}",
            expected="a line with the loss of the last epoch",
            remedy=f"delete {found[0]}, then rerun the same command: it repeats the steps since "
            "the previous checkpoint, or all of them",
        )
    return TrainingOutcome(
        student=student.eval(),
        loss=line.get("epoch_loss", line.get("loss", math.nan)),  # old lines have no epoch_loss
        bottleneck=bottleneck(run.read_metrics(), settings.runtime.loader_workers),
        global_steps=found[1].global_step,
        seconds=seconds,
    )
