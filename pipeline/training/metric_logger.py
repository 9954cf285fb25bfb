"""Logs the metrics of a run: metric lines, TensorBoard, a progress bar, the loss curve."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard.writer import SummaryWriter

from distinit.pipeline.progress import Progress
from distinit.pipeline.storage import atomic_write_bytes, open_for_writing
from distinit.pipeline.training.curve import draw_curve
from distinit.pipeline.training.metrics import MetricLine
from distinit.pipeline.training.run_dir import RunDirectory

__all__ = ["MetricLogger", "NullMetricLogger", "progress_metrics"]

COORDINATES = frozenset({"step", "epoch", "clips", "clips_total"})


class NullMetricLogger:
    """Logs nothing. Only the worker of rank 0 writes metrics; the others use this class."""

    def start(self, clips_total: int, clips_done: int) -> None:
        """Show the progress bar. Only the first call has an effect."""

    def advance(self, clips: int, line: MetricLine | None) -> None:
        """Advance the progress bar, and record ``line`` if there is one."""

    def close(self) -> None:
        """Flush everything and draw the loss curve."""


class MetricLogger(NullMetricLogger):
    """Records the metric lines of one run, which starts or resumes after ``global_step``."""

    def __init__(self, run: RunDirectory, progress: Progress, global_step: int) -> None:
        self._run = run
        self._progress = progress
        self._started = False
        self._drop_lines_after(global_step)
        self._file = os.fdopen(open_for_writing(run.metrics, os.O_APPEND), "a")
        self._board = SummaryWriter(
            str(run.tensorboard), purge_step=global_step + 1 if global_step else None
        )

    def start(self, clips_total: int, clips_done: int) -> None:
        """See NullMetricLogger."""
        if not self._started:
            self._progress.start("training", clips_total, "clips", clips_done)
            self._started = True

    def advance(self, clips: int, line: MetricLine | None) -> None:
        """See NullMetricLogger."""
        if line is not None:
            self._log(line)
        self._progress.advance(clips, **progress_metrics(line or {}))

    def close(self) -> None:
        """See NullMetricLogger."""
        self._progress.finish()
        self._file.close()
        self._board.close()
        atomic_write_bytes(self._run.loss_plot, draw_curve(self._run.read_metrics()))

    def _log(self, line: MetricLine) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in line.items():
            if name not in COORDINATES:
                self._board.add_scalar(name, value, line["step"])

    def _drop_lines_after(self, global_step: int) -> None:
        """Drop lines that a killed process wrote after its last checkpoint."""
        kept = [line for line in self._run.read_metrics() if line["step"] <= global_step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        atomic_write_bytes(self._run.metrics, text.encode())


def progress_metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a line to show next to the progress bar, which shows the rate itself."""
    names = ("loss", "data_wait_percent", "learning_rate")
    return {name: line[name] for name in names if name in line}
