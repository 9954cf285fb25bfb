"""The training loop that distillation and finetuning share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.progress import Progress
from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.checkpoint import CheckpointStore
from distinit.pipeline.training.collective import Collective, SingleProcess
from distinit.pipeline.training.feed import DeviceBatch
from distinit.pipeline.training.loader import prefetch
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.pipeline.training.schedule import learning_rate
from distinit.pipeline.training.step import Stepper
from distinit.pipeline.training.step_time import bottleneck
from distinit.pipeline.training.task import ClipBatch, TrainingSettings, TrainingTask
from distinit.pipeline.training.watch import Watcher, progress_figures
from distinit.schemas.errors import CheckpointError, ComputeError, ConfigError
from distinit.schemas.run import CheckpointRecord

__all__ = ["TrainingOutcome", "fit", "train"]

LINES_PER_EPOCH = 500


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What training leaves in memory."""

    student: Student
    """On the CPU, in evaluation mode."""
    loss: float
    """Mean loss of the last metric line."""
    bottleneck: str
    """Where the time went, in one line."""
    global_steps: int
    seconds: float
    """Of this process; a resumed run counts from its resumption."""


def train(
    make_task: Callable[[], TrainingTask],
    settings: TrainingSettings,
    run: RunDirectory,
    progress: Progress,
) -> TrainingOutcome:
    """Train until the last epoch, going on from the run's newest intact checkpoint.

    With ``runtime.workers`` 0 everything happens in this process; otherwise ``make_task`` must
    pickle and is called on every Ray Train worker. Both compute the same thing.

    Raises ConfigError, CheckpointError, StorageError, ComputeError, LockedError (another
    process trains in this run directory), and what the task raises.
    """
    began = time.monotonic()
    workers = settings.runtime.workers
    if workers and settings.runtime.shards % workers:
        raise ConfigError(
            "the shards cannot be spread evenly over the workers",
            expected="runtime.shards divisible by runtime.workers",
            found=f"{settings.runtime.shards} shards, {workers} workers",
            remedy=f"set shards to {workers} (global batch = batch_size x shards)",
        )
    with WriterLock(run.root / ".lock"):
        if workers:
            from distinit.pipeline.training.ray_train import fit_on_ray

            fit_on_ray(make_task, settings, run, progress)
        else:
            device = resolve_device(settings.runtime.device)
            fit(make_task(), settings, run, SingleProcess(), device, progress)
    return _outcome(make_task(), settings, run, progress, time.monotonic() - began)


def _outcome(
    task: TrainingTask,
    settings: TrainingSettings,
    run: RunDirectory,
    progress: Progress,
    seconds: float,
) -> TrainingOutcome:
    student = task.build()
    found = _checkpoints(run, settings).take_up(student, None, progress.message)
    if found is None:
        raise CheckpointError(
            f"training left no checkpoint in {run.checkpoints}",
            remedy="run the same command again",
        )
    line = run.last_metric()
    if line is None:
        raise CheckpointError(
            f"the training is done, but its metric lines are lost: {run.metrics}",
            expected="a line with the loss of the last steps",
            remedy=f"delete {found[0]}, then run the same command again: it repeats the steps "
            "since the checkpoint before, or all of them",
        )
    return TrainingOutcome(
        student=student.eval(),
        loss=line.get("loss", math.nan),
        bottleneck=bottleneck(run.read_metrics(), settings.runtime.loader_workers),
        global_steps=found[1].global_step,
        seconds=seconds,
    )


def fit(
    task: TrainingTask,
    settings: TrainingSettings,
    run: RunDirectory,
    collective: Collective,
    device: torch.device,
    progress: Progress,
) -> None:
    """One worker's part of the training; the whole of it for a collective of one."""
    try:
        _Fit(task, settings, run, collective, device, progress).run()
    except torch.OutOfMemoryError as error:
        raise ComputeError(
            "the GPU ran out of memory",
            found=str(error).splitlines()[0],
            remedy="halve runtime.batch_size and double runtime.shards: the same global batch",
        ) from error


@dataclass(frozen=True, slots=True)
class _Request:
    """One shard of one step."""

    epoch: int
    shard: int
    samples_B: NDArray[np.int64]


_Batches = Generator[tuple[tuple[int, ClipBatch | DeviceBatch], float]]


@dataclass(slots=True)
class _Window:
    """Sums since the last metric line. Figures stay on the device until they are needed."""

    figures: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    began: float = field(default_factory=lambda: time.monotonic())

    def add(self, figures: dict[str, Tensor]) -> None:
        """Count one step."""
        self.steps += 1
        for name, value in figures.items():
            value = value.double()
            self.figures[name] = self.figures[name] + value if name in self.figures else value

    def sums(self) -> dict[str, float]:
        """Sums as Python floats. Raises ComputeError if training has diverged."""
        sums = {name: float(value) for name, value in self.figures.items()}
        if not math.isfinite(sums.get("loss", 0.0)):
            raise ComputeError(
                "the training loss is not a finite number",
                found=sums["loss"],
                remedy="lower optimizer.learning_rate, add warmup_epochs or clip_gradient_norm",
            )
        return sums


def _checkpoints(run: RunDirectory, settings: TrainingSettings) -> CheckpointStore:
    keep = settings.runtime.keep_checkpoints
    return CheckpointStore(run.checkpoints, run.record.config_digest, keep)


class _Fit:
    """The state of one training run in one process."""

    def __init__(
        self,
        task: TrainingTask,
        settings: TrainingSettings,
        run: RunDirectory,
        collective: Collective,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._task, self._settings, self._collective = task, settings, collective
        self._run = run
        self._stepper = Stepper(task.build(), task, settings, collective, device)
        self._store = _checkpoints(run, settings)
        self._epoch = self._step = self._global_step = 0
        self._window = _Window()
        self._resume(device, progress)
        leads = collective.rank == 0
        self._watcher = Watcher(run, progress, self._global_step) if leads else None
        self._saved_step = self._global_step
        self._saved_seconds = time.monotonic()
        self._shown = False
        self._checked_epochs: set[int] = set()

    def _resume(self, device: torch.device, progress: Progress) -> None:
        stepper = self._stepper
        found = self._store.take_up(stepper.student, stepper.optimizer, progress.message)
        if found is None:
            return
        _, record = found
        self._epoch, self._step = record.epoch, record.step
        self._global_step = record.global_step
        sums = {n: torch.tensor(v, dtype=torch.float64) for n, v in record.window.items()}
        self._window = _Window({n: t.to(device) for n, t in sums.items()}, record.window_steps)
        progress.message(f"resuming after step {self._global_step} (epoch {self._epoch + 1})")

    def run(self) -> None:
        """Train from where it stands to the end."""
        epochs = self._settings.optimizer.epochs
        self._checked_epochs = {self._epoch, epochs - 1}
        try:
            for epoch in range(self._epoch, epochs):
                self._run_epoch(epoch)
            if self._watcher is not None and self._saved_step < self._global_step:
                self._save()
        finally:
            if self._watcher is not None:
                self._watcher.progress.finish()
                self._watcher.close()

    def _run_epoch(self, epoch: int) -> None:
        samples = self._task.samples(epoch)
        steps = len(samples) // self._settings.global_batch
        if steps == 0:
            raise ConfigError(
                "an epoch has fewer clips than one step",
                expected=f"at least {self._settings.global_batch} clips (batch_size x shards)",
                found=f"{len(samples)} clips",
                remedy="lower runtime.batch_size or raise optimizer.clips_per_epoch",
            )
        self._show_start(steps)
        requests = self._requests(epoch, samples, steps)
        load, ahead = self._task.load, self._stepper.feed.ahead
        threads = self._settings.runtime.loader_workers
        with closing(
            prefetch(lambda r: (r.shard, ahead(load(r.epoch, r.samples_B))), requests, threads)
        ) as batches:
            for step in range(self._step, steps):
                self._run_step(batches, epoch, step, steps)
        if self._watcher is not None and epoch in self._checked_epochs:
            self._task.check_progress(self._run.read_metrics())

    def _run_step(self, batches: _Batches, epoch: int, step: int, steps: int) -> None:
        rate = learning_rate(
            self._settings.optimizer,
            epoch=epoch,
            step=step,
            steps=steps,
            shards=self._settings.runtime.shards,
        )
        figures = self._stepper.step(self._own_shards(batches), self._global_step, rate)
        self._after_step(figures, epoch, step, steps, rate)

    def _requests(self, epoch: int, samples: NDArray[np.int64], steps: int) -> Iterator[_Request]:
        """This worker's shards, rank, rank + workers, ... of every step to come."""
        size, shards = self._settings.runtime.batch_size, self._settings.runtime.shards
        for step in range(self._step, steps):
            for shard in range(self._collective.rank, shards, self._collective.world_size):
                first = (step * shards + shard) * size
                yield _Request(epoch, shard, samples[first : first + size])

    def _own_shards(self, batches: _Batches) -> Iterator[tuple[int, ClipBatch | DeviceBatch]]:
        """The next step's (shard, batch) pairs; counts the time spent waiting for them."""
        for _ in range(self._settings.runtime.shards // self._collective.world_size):
            item, wait_seconds = next(batches)
            self._stepper.clock.add("data_wait", wait_seconds)
            yield item

    def _after_step(
        self, figures: dict[str, Tensor], epoch: int, step: int, steps: int, rate: float
    ) -> None:
        self._global_step += 1
        self._epoch, self._step = (epoch, step + 1) if step + 1 < steps else (epoch + 1, 0)
        if self._watcher is None:
            self._stepper.clock.clear()
            return
        self._window.add(figures)
        every = max(1, steps // LINES_PER_EPOCH)
        shown: dict[str, float] = {}
        if (step + 1) % every == 0 or step + 1 == steps:
            shown = self._log(epoch + (step + 1) / steps, rate, steps)
        self._watcher.progress.advance(self._settings.global_batch, **shown)
        if self._checkpoint_due():
            self._save()

    def _log(self, epoch: float, rate: float, steps: int) -> dict[str, float]:
        window, batch = self._window, self._settings.global_batch
        sums = window.sums()
        seconds = max(1e-9, time.monotonic() - window.began)
        line = {
            "step": self._global_step,
            "epoch": epoch,
            "clips": self._global_step * batch,
            "clips_total": self._settings.optimizer.epochs * steps * batch,
            "learning_rate": rate,
            **{name: total / window.steps for name, total in sums.items()},
            "clips_per_second": window.steps * batch / seconds,
            **self._stepper.clock.take(seconds),
        }
        self._window = _Window()
        if self._watcher is not None:
            self._watcher.log(line)
        return progress_figures(line)

    def _checkpoint_due(self) -> bool:
        runtime = self._settings.runtime
        if runtime.checkpoint_steps is not None:
            return self._global_step - self._saved_step >= runtime.checkpoint_steps
        return time.monotonic() - self._saved_seconds >= runtime.checkpoint_seconds

    def _save(self) -> None:
        record = CheckpointRecord(
            config_digest="",
            epoch=self._epoch,
            step=self._step,
            global_step=self._global_step,
            window=self._window.sums(),
            window_steps=self._window.steps,
            files={},
        )
        self._store.save(record, self._stepper.student, self._stepper.optimizer)
        self._saved_step, self._saved_seconds = self._global_step, time.monotonic()

    def _show_start(self, steps: int) -> None:
        """Begin the bar, once, when the length of an epoch is known."""
        if self._watcher is None or self._shown:
            return
        clips, batch = steps * self._settings.global_batch, self._settings.global_batch
        total = self._settings.optimizer.epochs * clips
        self._watcher.progress.start("training", total, "clips", self._global_step * batch)
        self._shown = True
