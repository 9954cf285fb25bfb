"""The trainer: runs one process's part of a training, from the newest checkpoint to the end."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.interruption import StopRequest
from distinit.pipeline.progress import Progress
from distinit.pipeline.training.checkpoint import CheckpointStore
from distinit.pipeline.training.collective import Collective
from distinit.pipeline.training.epoch_samples import EpochSamples
from distinit.pipeline.training.feed import DeviceBatch
from distinit.pipeline.training.loader import prefetch
from distinit.pipeline.training.metric_logger import MetricLogger, NullMetricLogger
from distinit.pipeline.training.metrics import MetricLine
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.pipeline.training.schedule import learning_rate
from distinit.pipeline.training.step import Stepper
from distinit.pipeline.training.stopping import TrainingStoppedError
from distinit.pipeline.training.task import ClipBatch, Evaluator, TrainingSettings, TrainingTask
from distinit.pipeline.training.window import MetricWindow
from distinit.schemas.errors import ComputeError, ConfigError
from distinit.schemas.run import CheckpointRecord
from distinit.schemas.wording import reason_of

__all__ = ["Trainer", "checkpoints_of", "fit"]


@dataclass(frozen=True, slots=True)
class _ShardRequest:
    """The samples of one shard of one step."""

    epoch: int
    shard: int
    samples_B: NDArray[np.int64]


type _Batches = Generator[tuple[tuple[int, ClipBatch | DeviceBatch], float]]
"""((shard, batch), seconds waited for it)."""


def checkpoints_of(run: RunDirectory, settings: TrainingSettings) -> CheckpointStore:
    """The checkpoints of ``run``."""
    keep = settings.runtime.keep_checkpoints
    return CheckpointStore(run.checkpoints, run.record.config_digest, keep)


def fit(
    task: TrainingTask,
    settings: TrainingSettings,
    run: RunDirectory,
    collective: Collective,
    device: torch.device,
    progress: Progress,
    stop: StopRequest,
    evaluator: Evaluator | None = None,
) -> None:
    """Run one worker's part of the training (all of it, if there is only one worker).

    ``stop``: only that of the worker of rank 0 is looked at, which decides for all of them.
    Raises ComputeError if the GPU runs out of memory, and what ``Trainer.run`` raises.
    """
    try:
        Trainer(task, settings, run, collective, device, progress, stop, evaluator).run()
    except torch.OutOfMemoryError as error:
        raise ComputeError(
            "the GPU ran out of memory",
            found=reason_of(error),
            remedy="halve runtime.batch_size and double runtime.shards: the same global batch",
        ) from error


class Trainer:
    """Trains a student in one process, alone or as one worker of several.

    The worker of rank 0 also logs metrics and saves checkpoints.
    """

    def __init__(
        self,
        task: TrainingTask,
        settings: TrainingSettings,
        run: RunDirectory,
        collective: Collective,
        device: torch.device,
        progress: Progress,
        stop: StopRequest,
        evaluator: Evaluator | None = None,
    ) -> None:
        self._task, self._settings, self._collective = task, settings, collective
        self._run, self._evaluator, self._device = run, evaluator, device
        self._samples = EpochSamples(task, collective, device)
        self._stepper = Stepper(task.build(), task, settings, collective, device)
        self._checkpoints = checkpoints_of(run, settings)
        self._stop = stop
        self._steps_total: int | None = None
        self._epoch = self._step = self._global_step = 0
        self._window = MetricWindow()
        self._resume(progress)
        self._is_main = collective.rank == 0
        watched = "test" if evaluator is None else evaluator.subset
        self._logger = (
            MetricLogger(run, progress, self._global_step, settings.runtime, watched)
            if self._is_main
            else NullMetricLogger()
        )
        self._saved_step = self._global_step
        self._saved_seconds = time.monotonic()

    def run(self) -> None:
        """Train from the current step to the end of the last epoch.

        Raises TrainingStoppedError, after a checkpoint, if it is asked to stop; ComputeError if
        the loss diverges, ConfigError if an epoch is shorter than a step, and what the task and
        the checkpoints raise.
        """
        try:
            self._run_epochs()
        finally:
            self._samples.close()
            self._logger.close()

    def _resume(self, progress: Progress) -> None:
        stepper = self._stepper
        found = self._checkpoints.load_latest(stepper.student, stepper.optimizer, progress.message)
        if found is None:
            return
        _, record = found
        self._epoch, self._step = record.epoch, record.step
        self._global_step = record.global_step
        self._window.restore(record)
        progress.message(f"resuming after step {self._global_step} (epoch {self._epoch + 1})")

    def _run_epochs(self) -> None:
        epochs = self._settings.optimizer.epochs
        checked_epochs = {self._epoch, epochs - 1}
        if self._step == 0 and self._evaluation_is_missing():
            self._evaluate()
        for epoch in range(self._epoch, epochs):
            self._run_epoch(epoch)
            if self._evaluation_is_due():
                self._evaluate()
            if self._is_main and epoch in checked_epochs:
                self._task.check_progress(self._run.read_metrics())
        self._save_unsaved()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        """Raise TrainingStoppedError if training was asked to stop, after saving a checkpoint.

        Only on rank 0. All workers have the same student after a step, so its checkpoint is that
        of them all; the others wait for it in the next all-reduce until they are ended.
        """
        if self._is_main and self._stop.is_set():
            self._save_unsaved()
            raise self._stopped()

    def _stopped(self) -> TrainingStoppedError:
        return TrainingStoppedError(self._global_step, self._steps_total)

    def _save_unsaved(self) -> None:
        if self._is_main and self._saved_step < self._global_step:
            self._save()

    def _evaluation_is_due(self) -> bool:
        """Whether to evaluate after the epochs done so far; not after the last one."""
        every = 0 if self._evaluator is None else self._evaluator.every
        return (
            every > 0 and self._epoch % every == 0 and self._epoch < self._settings.optimizer.epochs
        )

    def _evaluation_is_missing(self) -> bool:
        """Whether training was killed between the checkpoint of an epoch and its evaluation.

        The worker of rank 0 decides, because others may see an old version of the file.
        """
        if self._epoch == 0 or not self._evaluation_is_due():
            return False
        steps = [line["step"] for line in self._run.read_evaluations()] if self._is_main else []
        missing = self._is_main and self._global_step not in steps
        decision = torch.tensor([float(missing)], device=self._device)
        self._collective.sum_(decision)
        return bool(decision.item())

    def _evaluate(self) -> None:
        """Evaluate after the epochs done so far, and log the metrics."""
        if self._evaluator is None:
            return
        self._save_unsaved()
        self._stop_if_asked()
        self._logger.evaluating(self._epoch)
        student = self._stepper.student
        with self._stop.at_once(self._stopped().text):
            metrics = self._evaluator.evaluate(student, self._collective, self._device)
        self._logger.evaluated({"step": self._global_step, "epoch": self._epoch, **metrics})
        if self._window.steps == 0:  # its time does not count as that of a step
            self._window.began = time.monotonic()

    def _run_epoch(self, epoch: int) -> None:
        samples = self._samples.of(epoch)
        if epoch + 1 < self._settings.optimizer.epochs:
            self._samples.prepare(epoch + 1)
        batch = self._settings.global_batch
        steps = len(samples) // batch
        if steps == 0:
            raise ConfigError(
                "an epoch has fewer clips than one step",
                expected=f"at least {batch} clips (batch_size x shards)",
                found=f"{len(samples)} clips",
                remedy="lower runtime.batch_size or raise optimizer.clips_per_epoch",
            )
        self._steps_total = self._settings.optimizer.epochs * steps
        self._logger.start(self._steps_total * batch, self._global_step * batch)
        requests = self._requests(epoch, samples, steps)
        with closing(
            prefetch(self._load, requests, self._settings.runtime.loader_workers)
        ) as batches:
            for step in range(self._step, steps):
                self._stop_if_asked()
                self._run_step(batches, epoch, step, steps)

    def _requests(
        self, epoch: int, samples: NDArray[np.int64], steps: int
    ) -> Iterator[_ShardRequest]:
        """This worker's shards, rank, rank + workers, ... of every remaining step."""
        size, shards = self._settings.runtime.batch_size, self._settings.runtime.shards
        for step in range(self._step, steps):
            for shard in range(self._collective.rank, shards, self._collective.world_size):
                first = (step * shards + shard) * size
                yield _ShardRequest(epoch, shard, samples[first : first + size])

    def _load(self, request: _ShardRequest) -> tuple[int, ClipBatch | DeviceBatch]:
        """Load one shard; called by loader threads."""
        batch = self._task.load(request.epoch, request.samples_B)
        return request.shard, self._stepper.feed.prepare(batch)

    def _run_step(self, batches: _Batches, epoch: int, step: int, steps: int) -> None:
        rate = learning_rate(
            self._settings.optimizer,
            epoch=epoch,
            step=step,
            steps=steps,
            shards=self._settings.runtime.shards,
        )
        metrics = self._stepper.step(self._own_shards(batches), self._global_step, rate)
        self._after_step(metrics, epoch, step, steps, rate)

    def _own_shards(self, batches: _Batches) -> Iterator[tuple[int, ClipBatch | DeviceBatch]]:
        """The next step's (shard, batch) pairs; measures the time spent waiting for them."""
        for _ in range(self._settings.runtime.shards // self._collective.world_size):
            item, wait_seconds = next(batches)
            self._stepper.clock.add("data_wait", wait_seconds)
            yield item

    def _after_step(
        self, metrics: dict[str, Tensor], epoch: int, step: int, steps: int, rate: float
    ) -> None:
        self._global_step += 1
        self._epoch, self._step = (epoch, step + 1) if step + 1 < steps else (epoch + 1, 0)
        if not self._is_main:
            self._stepper.clock.clear()
            return
        self._window.add(metrics)
        line = None
        if step + 1 == steps or self._window.seconds >= self._settings.runtime.log_seconds:
            line = self._close_window(epoch + (step + 1) / steps, rate, steps)
        self._logger.advance(self._settings.global_batch, line)
        if self._checkpoint_due():
            self._save()

    def _close_window(self, epoch: float, rate: float, steps: int) -> MetricLine:
        """The metric line of the steps since the last one; begins a new window."""
        window, batch = self._window, self._settings.global_batch
        means = {name: total / window.steps for name, total in window.sums().items()}
        seconds = max(1e-9, window.seconds)
        if self._step == 0:  # the line of an epoch's last step
            means["epoch_loss"] = window.epoch_loss / window.epoch_steps
            window.next_epoch()
        line = {
            "step": self._global_step,
            "epoch": epoch,
            "clips": self._global_step * batch,
            "clips_total": self._settings.optimizer.epochs * steps * batch,
            "learning_rate": rate,
            **means,
            "clips_per_second": window.steps * batch / seconds,
            **self._stepper.clock.take(seconds),
        }
        window.next_line()
        return line

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
            epoch_loss=self._window.epoch_loss,
            files={},
        )
        self._checkpoints.save(record, self._stepper.student, self._stepper.optimizer)
        self._saved_step, self._saved_seconds = self._global_step, time.monotonic()
