"""What one sees of a run: metric lines, TensorBoard, progress, the loss curve."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard.writer import SummaryWriter

from distinit.pipeline.progress import Progress
from distinit.pipeline.storage import atomic_write_bytes, open_for_writing
from distinit.pipeline.training.curve import draw_curve
from distinit.pipeline.training.run_dir import RunDirectory

__all__ = ["Watcher", "draw_loss", "progress_figures"]

COORDINATES = frozenset({"step", "epoch", "clips", "clips_total"})


class Watcher:
    """Records the metric lines of one run, going on at ``global_step``."""

    def __init__(self, run: RunDirectory, progress: Progress, global_step: int) -> None:
        self.progress = progress
        self._run = run
        self._keep_until(global_step)
        self._file = os.fdopen(open_for_writing(run.metrics, os.O_APPEND), "a")
        self._board = SummaryWriter(
            str(run.tensorboard), purge_step=global_step + 1 if global_step else None
        )

    def _keep_until(self, global_step: int) -> None:
        """Drop lines that a killed process wrote after its last checkpoint."""
        kept = [line for line in self._run.read_metrics() if line["step"] <= global_step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        atomic_write_bytes(self._run.metrics, text.encode())

    def log(self, line: Mapping[str, Any]) -> None:
        """Add one metric line; ``step`` counts optimiser steps done."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in line.items():
            if name not in COORDINATES:
                self._board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Flush all and draw the loss curve."""
        self._file.close()
        self._board.close()
        draw_loss(self._run)


def progress_figures(line: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a metric line that are shown beside the bar, which has a rate of its own."""
    names = ("loss", "data_wait_percent", "learning_rate")
    return {name: line[name] for name in names if name in line}


def draw_loss(run: RunDirectory) -> None:
    """Write ``loss.png``: losses and learning rate over epochs."""
    atomic_write_bytes(run.loss_plot, draw_curve(run.read_metrics()))
