"""One optimiser step over all shards of the global batch.

The result does not depend on how the shards are spread over workers: gradients, metrics and the
running statistics of batch norm are means over the shards of the step, summed by one all-reduce.
Batch norm normalises within a shard, never over the global batch. On a CPU the sums are computed in
float64 and rounded once, so that their order, which depends on the number of workers, does not
change the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.collective import Collective
from distinit.pipeline.training.feed import DeviceBatch, Feed
from distinit.pipeline.training.optimizer import new_optimizer
from distinit.pipeline.training.sampling import torch_seed
from distinit.pipeline.training.step_time import StepClock
from distinit.pipeline.training.task import ClipBatch, TrainingSettings, TrainingTask

__all__ = ["RunningStatistics", "Stepper"]


class RunningStatistics:
    """The running statistics of batch norm: their mean over the shards of a step.

    Each shard starts from the statistics before the step, so neither the order of the shards nor
    the worker that computes them matters.
    """

    def __init__(self, student: nn.Module, shards: int, dtype: torch.dtype) -> None:
        norms = [
            m
            for m in student.modules()
            if isinstance(m, _BatchNorm) and m.training and m.track_running_stats
        ]
        self._shards = shards
        self._buffers = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
        self._counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
        self._before = [b.clone() for b in (*self._buffers, *self._counters)]
        self.sums = [torch.zeros_like(b, dtype=dtype) for b in self._buffers]

    def begin_shard(self) -> None:
        """Restore the statistics from before the step."""
        for buffer, before in zip((*self._buffers, *self._counters), self._before, strict=True):
            buffer.copy_(before)

    def end_shard(self) -> None:
        """Add the statistics after this shard to the sums."""
        for total, buffer in zip(self.sums, self._buffers, strict=True):
            total.add_(buffer)

    def finish(self) -> None:
        """Store the mean over all shards; ``sums`` must have been summed over the workers."""
        for buffer, total in zip(self._buffers, self.sums, strict=True):
            buffer.copy_(total / self._shards)


class Stepper:
    """Runs the forward pass, backward pass and update of a student; ``clock`` measures them."""

    def __init__(
        self,
        student: Student,
        task: TrainingTask,
        settings: TrainingSettings,
        collective: Collective,
        device: torch.device,
    ) -> None:
        self.student = student.to(device)
        if device.type == "cuda":
            self.student.to(memory_format=torch.channels_last_3d)
        self.optimizer = new_optimizer(student, settings.optimizer)
        self.clock = StepClock(device)
        self._forward = torch.compile(student) if settings.runtime.compile else student
        self._task = task
        self._settings = settings
        self._collective = collective
        self._device = device
        self._dtype = next(student.parameters()).dtype
        self.feed = Feed(settings.clip, settings.runtime, device, self._dtype)
        self._sum_dtype = torch.float64 if device.type == "cpu" else self._dtype

    def step(
        self,
        batches: Iterable[tuple[int, ClipBatch | DeviceBatch]],
        global_step: int,
        learning_rate: float,
    ) -> dict[str, Tensor]:
        """Train on this worker's (shard, batch) pairs.

        Returns scalar metrics, each the mean over the global batch.
        """
        shards, seed = self._settings.runtime.shards, self._settings.runtime.seed
        self.student.train()
        self.optimizer.zero_grad(set_to_none=False)
        statistics = RunningStatistics(self.student, shards, self._sum_dtype)
        gradients: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        for shard, batch in batches:
            statistics.begin_shard()
            torch.manual_seed(torch_seed(seed, global_step, shard))
            loss, task_metrics = self._loss(batch)
            with self.clock.measure("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
                gradients = self._add_gradients(gradients)
            statistics.end_shard()
            for name, value in {"loss": loss, **task_metrics}.items():
                metrics[name] = metrics.get(name, 0) + value.detach().to(self._sum_dtype)
        with self.clock.measure("optimizer"):
            return self._update(statistics, gradients, metrics, learning_rate)

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _add_gradients(self, sums: list[Tensor]) -> list[Tensor]:
        """Add the gradients of one shard to the sums, and reset them for the next shard."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        if self._settings.runtime.shards == 1:
            return gradients
        if not sums:
            sums = [torch.zeros_like(g, dtype=self._sum_dtype) for g in gradients]
        for total, gradient in zip(sums, gradients, strict=True):
            total.add_(gradient)
        self.optimizer.zero_grad(set_to_none=False)
        return sums

    def _loss(self, batch: ClipBatch | DeviceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        with self.clock.measure("transfer"):
            device_batch = self.feed.to_device(batch)
        precision = self._settings.runtime.precision
        with self.clock.measure("forward"):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16"):
                outputs: Mapping[str, Tensor] = self._forward(device_batch.clip_BCTHW)
            outputs = {name: t.to(self._dtype) for name, t in outputs.items()}
            return self._task.loss(outputs, device_batch.targets)

    def _update(
        self,
        statistics: RunningStatistics,
        gradients: Sequence[Tensor],
        metrics: dict[str, Tensor],
        learning_rate: float,
    ) -> dict[str, Tensor]:
        """One step of the optimiser from this worker's sums; returns means over all shards."""
        shards, names = self._settings.runtime.shards, sorted(metrics)
        values = [metrics[name].reshape(1) for name in names]
        if self._collective.world_size > 1:
            _sum_all(self._collective, [*gradients, *statistics.sums, *values])
        statistics.finish()
        for parameter, total in zip(self._parameters, gradients, strict=True):
            # Set even if zero: without a gradient weight decay is skipped, on this worker only.
            parameter.grad = total if shards == 1 else (total / shards).to(parameter.dtype)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if self._settings.optimizer.clip_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._settings.optimizer.clip_gradient_norm)
        self.optimizer.step()
        return {name: value[0] / shards for name, value in zip(names, values, strict=True)}


def _sum_all(collective: Collective, tensors: Sequence[Tensor]) -> None:
    """Sum each tensor over the workers with a single all-reduce."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    collective.sum_(flat)
    parts = torch.split(flat, [t.numel() for t in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
