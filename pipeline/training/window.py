"""The metrics of the steps since the last metric line, and the loss of an epoch.

Values stay on the device until a line is written, so that no step waits for the device. They are
added up in the order of the steps: when lines are written does not change any sum.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from distinit.schemas.errors import ComputeError
from distinit.schemas.run import CheckpointRecord

__all__ = ["MetricWindow"]


class MetricWindow:
    """Sums of metrics since the last metric line, and of the loss since the epoch began."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.steps = 0
        self.epoch_steps = 0
        self.epoch_loss = 0.0
        self._sums: dict[str, float] = {}
        self._unread: dict[str, list[Tensor]] = {}

    def restore(self, record: CheckpointRecord) -> None:
        """Continue with the sums of a checkpoint."""
        self.steps, self._sums = record.window_steps, dict(record.window)
        self.epoch_steps, self.epoch_loss = record.step, record.epoch_loss

    @property
    def seconds(self) -> float:
        """Since the last metric line."""
        return time.monotonic() - self.began

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add the metrics of one step: scalars on any device, finished or not."""
        self.steps += 1
        self.epoch_steps += 1
        for name, value in metrics.items():
            self._unread.setdefault(name, []).append(value)

    def sums(self) -> dict[str, float]:
        """Wait for the device and return the sums. Raises ComputeError if training has diverged."""
        if self._unread:
            stacked_KS = torch.stack([torch.stack(v).double() for v in self._unread.values()])
            for name, values in zip(self._unread, stacked_KS.tolist(), strict=True):
                for value in values:
                    self._sums[name] = self._sums.get(name, 0.0) + value
                    self.epoch_loss += value if name == "loss" else 0.0
            self._unread = {}
        if not math.isfinite(self._sums.get("loss", 0.0)):
            raise ComputeError(
                "the training loss is not a finite number",
                found=self._sums["loss"],
                remedy="lower optimizer.learning_rate, add warmup_epochs or clip_gradient_norm",
            )
        return dict(self._sums)

    def next_line(self) -> None:
        """Begin the window of the next metric line. ``sums`` must have been called."""
        self.steps, self._sums = 0, {}
        self.began = time.monotonic()

    def next_epoch(self) -> None:
        """Begin the loss of the next epoch."""
        self.epoch_steps, self.epoch_loss = 0, 0.0
