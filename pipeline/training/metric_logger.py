"""Logs the metrics of a run: metric lines, TensorBoard, a progress bar, the loss curve."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distinit.pipeline.progress import Progress
from distinit.pipeline.storage import atomic_write_bytes, open_for_writing
from distinit.pipeline.training.boards import open_boards
from distinit.pipeline.training.curve import ACCURACIES, draw_curve, loss_names
from distinit.pipeline.training.metrics import MetricLine, read_lines
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.pipeline.training.workload import Forecast
from distinit.schemas.evaluation import ScoredSubset
from distinit.schemas.training import RuntimeConfig

__all__ = [
    "MetricLogger",
    "NullMetricLogger",
    "evaluation_text",
    "log_final_evaluation",
    "progress_metrics",
]

COORDINATES = frozenset({"step", "epoch", "clips", "clips_total"})


class NullMetricLogger:
    """Logs nothing. Only the worker of rank 0 writes metrics; the others use this class."""

    def start(self, clips_total: int, clips_done: int) -> None:
        """Show the progress bar. Only the first call has an effect."""

    def advance(self, clips: int, line: MetricLine | None) -> None:
        """Advance the progress bar, and record ``line`` if there is one."""

    def evaluating(self, epochs: int) -> None:
        """Say that the student is evaluated after ``epochs`` epochs."""

    def evaluated(self, line: MetricLine) -> None:
        """Record the metrics of an evaluation during training."""

    def close(self) -> None:
        """Flush everything and draw the loss curve."""


class MetricLogger(NullMetricLogger):
    """Records the metric lines of one run, which starts or resumes after ``global_step``."""

    def __init__(
        self,
        run: RunDirectory,
        progress: Progress,
        global_step: int,
        runtime: RuntimeConfig,
        watched: ScoredSubset = "test",
    ) -> None:
        """``watched``: the videos of evaluations during training.

        Raises ConfigError if wandb is configured and cannot start.
        """
        self._run = run
        self._watched = watched
        self._progress = progress
        self._forecast: Forecast | None = None
        self._drop_lines_after(global_step)
        self._boards = open_boards(run, runtime, progress, global_step)
        self._file = os.fdopen(open_for_writing(run.metrics, os.O_APPEND), "a")

    def start(self, clips_total: int, clips_done: int) -> None:
        """See NullMetricLogger."""
        if self._forecast is None:
            self._progress.start("training", clips_total, "clips", clips_done)
            self._forecast = Forecast(self._progress, clips_total - clips_done)

    def advance(self, clips: int, line: MetricLine | None) -> None:
        """See NullMetricLogger."""
        if line is not None:
            self._log(line)
        self._progress.advance(clips, **progress_metrics(line or {}))
        if self._forecast is not None:
            self._forecast.advance(clips)

    def evaluating(self, epochs: int) -> None:
        """See NullMetricLogger."""
        self._progress.message(f"evaluating after epoch {epochs}")

    def evaluated(self, line: MetricLine) -> None:
        """See NullMetricLogger."""
        _add_evaluation(self._run, line)
        self._add(line, f"{self._watched}/")
        self._progress.message(evaluation_text(line))

    def close(self) -> None:
        """See NullMetricLogger."""
        self._progress.finish()
        self._file.close()
        for board in self._boards:
            board.close()
        _draw(self._run, self._watched)

    def _log(self, line: MetricLine) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._add(line)

    def _add(self, line: MetricLine, prefix: str = "") -> None:
        values = {prefix + name: line[name] for name in line if name not in COORDINATES}
        for board in self._boards:
            board.add(values, int(line["step"]))

    def _drop_lines_after(self, global_step: int) -> None:
        """Drop lines that a killed process wrote after its last checkpoint."""
        for path in (self._run.metrics, self._run.evaluations):
            lines = read_lines(path)
            kept = [line for line in lines if line["step"] <= global_step]
            if path == self._run.metrics or len(kept) < len(lines):
                _write_lines(path, kept)


def log_final_evaluation(
    run: RunDirectory,
    epochs: int,
    metrics: Mapping[str, float],
    watched: ScoredSubset = "test",
) -> None:
    """Add the evaluation of the finished student to those during training, and to the curve."""
    last = run.last_metric()
    if last is not None:
        _add_evaluation(run, {"step": last["step"], "epoch": epochs, **metrics})
        _draw(run, watched)


def _add_evaluation(run: RunDirectory, line: MetricLine) -> None:
    """Add a line; one of the same step is replaced."""
    kept = [other for other in run.read_evaluations() if other["step"] < line["step"]]
    _write_lines(run.evaluations, [*kept, line])


def _write_lines(path: Path, lines: Sequence[MetricLine]) -> None:
    atomic_write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def _draw(run: RunDirectory, watched: ScoredSubset) -> None:
    curve = draw_curve(
        run.read_metrics(), run.read_evaluations(), run.title, watched, run.loss_unit
    )
    atomic_write_bytes(run.loss_plot, curve)


def evaluation_text(line: Mapping[str, Any]) -> str:
    """One line of text with the accuracies of an evaluation during training."""
    values = [f"{text} {line[name]:.1f}" for name, text in ACCURACIES.items() if name in line]
    return f"after epoch {line.get('epoch', 0):g}: {', '.join(values)}"


def progress_metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a line to show next to the progress bar, which shows the rate itself.

    The losses of the heads follow that of all if there are several heads.
    """
    names = (*loss_names([dict(line)]), "data_wait_percent", "learning_rate")
    return {name: line[name] for name in names if name in line}
