"""The running statistics of batch norm: their mean over the shards of a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["RunningStatistics"]


class RunningStatistics:
    """Running means and variances of a student, and their means over the shards of a step.

    Each shard starts from the statistics before the step, so neither the order of the shards nor
    the worker that computes them matters.
    """

    def __init__(self, student: nn.Module, sum_dtype: torch.dtype | None) -> None:
        """``sum_dtype``: type of the sums. None: this worker has one shard, so nothing is copied;
        the statistics themselves are summed over the workers.
        """
        norms = [m for m in student.modules() if isinstance(m, _BatchNorm)]
        self._norms = [m for m in norms if m.track_running_stats]
        self._sum_dtype = sum_dtype
        self._buffers: list[Tensor] = []
        self._counters: list[Tensor] = []
        self._before: list[Tensor] = []
        self.sums: list[Tensor] = []
        """Sums over the shards so far."""

    def begin_step(self) -> None:
        """Remember the statistics before the step. Frozen layers are left out."""
        norms = [m for m in self._norms if m.training]
        self._buffers = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
        if self._sum_dtype is None:
            self.sums = self._buffers
            return
        self._counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
        self._before = [b.clone() for b in (*self._buffers, *self._counters)]
        self.sums = [torch.zeros_like(b, dtype=self._sum_dtype) for b in self._buffers]

    def begin_shard(self) -> None:
        """Restore the statistics from before the step."""
        if self._before:
            torch._foreach_copy_([*self._buffers, *self._counters], self._before)

    def end_shard(self) -> None:
        """Add the statistics after this shard to the sums."""
        if self._sum_dtype is not None and self.sums:
            torch._foreach_add_(self.sums, self._buffers)

    def finish(self, shards: int) -> None:
        """Store the mean over all shards; ``sums`` must have been summed over the workers."""
        if not self.sums or (self._sum_dtype is None and shards == 1):
            return
        torch._foreach_div_(self.sums, shards)
        if self._sum_dtype is not None:
            torch._foreach_copy_(self._buffers, self.sums)
