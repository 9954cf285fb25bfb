"""How much a run trains: the default length of an epoch, and what the start of a run says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from distinit.pipeline.progress import Progress
from distinit.pipeline.training.task import TrainingSettings
from distinit.schemas.training import OptimizerConfig, RuntimeConfig
from distinit.schemas.wording import duration

__all__ = ["Forecast", "Workload", "clips_of_epoch", "with_epoch_length"]

MIN_STEPS_PER_EPOCH = 10  # by default: a run over a few videos has 450 steps in 45 epochs
_WARMUP_ADVANCES = 1  # the first step also compiles, and fills caches
_MEASURED_ADVANCES, _MEASURED_SECONDS = 3, 3.0
_ROUNDED_PASSES = 100  # from here on, without decimals


def clips_of_epoch(optimizer: OptimizerConfig, runtime: RuntimeConfig, videos: int) -> int:
    """The length of an epoch over ``videos``; it depends on nothing but the configuration and them.

    ``clips_per_epoch: auto`` is one clip per video, but at least MIN_STEPS_PER_EPOCH steps.
    """
    if optimizer.clips_per_epoch == "auto":
        return max(videos, MIN_STEPS_PER_EPOCH * runtime.batch_size * runtime.shards)
    return videos if optimizer.clips_per_epoch is None else optimizer.clips_per_epoch


def with_epoch_length(
    optimizer: OptimizerConfig, runtime: RuntimeConfig, videos: int
) -> OptimizerConfig:
    """``optimizer`` with a number for ``clips_per_epoch: auto``, as it is recorded in the run."""
    if optimizer.clips_per_epoch != "auto":
        return optimizer
    clips = clips_of_epoch(optimizer, runtime, videos)
    return optimizer.model_copy(update={"clips_per_epoch": clips})


@dataclass(frozen=True, slots=True)
class Workload:
    """The clips and steps of a whole training run."""

    videos: int
    epochs: int
    steps_per_epoch: int
    global_batch: int
    may_skip: bool = False
    """Whether epochs may be shorter, because filtered clips are not loaded."""

    @classmethod
    def of(cls, settings: TrainingSettings, videos: int, *, may_skip: bool = False) -> Workload:
        """The workload of ``settings`` over ``videos``."""
        batch = settings.global_batch
        clips = clips_of_epoch(settings.optimizer, settings.runtime, videos)
        return cls(videos, settings.optimizer.epochs, clips // batch, batch, may_skip)

    @property
    def steps(self) -> int:
        """Optimiser steps over all epochs."""
        return self.epochs * self.steps_per_epoch

    @property
    def clips(self) -> int:
        """Clips over all epochs."""
        return self.steps * self.global_batch

    def line(self) -> str:
        """One line of text: clips, passes over the videos, epochs and steps."""
        passes = self.clips / self.videos
        exact = passes.is_integer()
        number = f"{passes:,.0f}" if exact or passes >= _ROUNDED_PASSES else f"{passes:.1f}"
        return (
            f"{'at most ' if self.may_skip else ''}{_counted(self.clips, 'clip')} "
            f"{'=' if exact else '= about'} {number} {'pass' if passes == 1 else 'passes'} over "
            f"{_counted(self.videos, 'video')} ({_counted(self.epochs, 'epoch')}, "
            f"{_counted(self.steps, 'step')} of {_counted(self.global_batch, 'clip')})"
        )

    def report(self, progress: Progress) -> None:
        """Say what is to come."""
        progress.message(
            self.line(),
            clips=self.clips,
            videos=self.videos,
            epochs=self.epochs,
            steps=self.steps,
            clips_per_step=self.global_batch,
        )


class Forecast:
    """Says once how long the rest of a training will take, from the speed of its first steps."""

    def __init__(
        self, progress: Progress, clips_left: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._progress, self._clips_left, self._clock = progress, clips_left, clock
        self._advances = self._measured_clips = 0
        self._began_seconds = clock()
        self._is_done = False

    def advance(self, clips: int) -> None:
        """Count ``clips`` that were trained on since the last call."""
        if self._is_done:
            return
        self._clips_left -= clips
        self._advances += 1
        if self._advances <= _WARMUP_ADVANCES:
            self._began_seconds = self._clock()
            return
        self._measured_clips += clips
        seconds = self._clock() - self._began_seconds
        measured = self._advances - _WARMUP_ADVANCES
        if measured >= _MEASURED_ADVANCES and seconds >= _MEASURED_SECONDS:
            self._is_done = True
            if self._clips_left > 0:
                self._report(self._measured_clips / seconds)

    def _report(self, clips_per_second: float) -> None:
        seconds_left = self._clips_left / clips_per_second
        self._progress.message(
            f"{_counted(self._clips_left, 'clip')} to go: about {duration(seconds_left)} on this "
            f"machine, at {clips_per_second:.3g} clips/s",
            clips_left=self._clips_left,
            seconds_left=round(seconds_left, 1),
            clips_per_second=round(clips_per_second, 3),
        )


def _counted(count: int, thing: str) -> str:
    """``count`` with separators, since it may be large, and the noun ``thing``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
