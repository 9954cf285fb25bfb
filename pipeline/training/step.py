"""One optimiser step over all shards of the global batch.

The result does not depend on how the shards are spread over workers: gradients, metrics and the
running statistics of batch norm are means over the shards of the step (see ``reduction``).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from distinit.pipeline.compute.device import memory_format, set_arithmetic
from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.collective import Collective
from distinit.pipeline.training.feed import DeviceBatch, Feed
from distinit.pipeline.training.optimizer import new_optimizer
from distinit.pipeline.training.reduction import new_reduction
from distinit.pipeline.training.sampling import torch_seed
from distinit.pipeline.training.step_time import StepClock
from distinit.pipeline.training.task import ClipBatch, TrainingSettings, TrainingTask
from distinit.schemas.training import RuntimeConfig

__all__ = ["Stepper"]


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
        self.student.to(memory_format=memory_format(device))
        self.optimizer = new_optimizer(student, settings.optimizer)
        self.clock = StepClock(device)
        self._task = task
        self._settings = settings
        self._collective = collective
        self._device = device
        self._dtype = next(student.parameters()).dtype
        self.feed = Feed(settings.clip, settings.runtime, device, self._dtype)
        self._own_shards = settings.runtime.shards // collective.world_size
        self._reduction = new_reduction(
            self.student,
            settings.runtime.shards,
            collective,
            exact=_is_exact(settings.runtime, device),
            compiled=settings.runtime.compile,
        )

    def step(
        self,
        batches: Iterable[tuple[int, ClipBatch | DeviceBatch]],
        global_step: int,
        learning_rate: float,
    ) -> dict[str, Tensor]:
        """Train on this worker's (shard, batch) pairs.

        Returns scalar metrics, each the mean over the global batch.
        """
        # Evaluation in between may have chosen other kernels.
        set_arithmetic(self._device, self._settings.runtime.precision)
        self.student.train()
        reduction = self._reduction
        reduction.begin_step()
        metrics: dict[str, Tensor] = {}
        for number, (shard, batch) in enumerate(batches, 1):
            torch.manual_seed(torch_seed(self._settings.runtime.seed, global_step, shard))
            with reduction.shard(is_last=number == self._own_shards):
                loss, task_metrics = self._loss(batch)
                with self.clock.measure("backward"):
                    reduction.backward(loss)
            for name, value in {"loss": loss, **task_metrics}.items():
                value = value.detach().to(reduction.sum_dtype)
                metrics[name] = metrics[name] + value if name in metrics else value
        with self.clock.measure("optimizer"):
            means = reduction.finish(metrics)
            self._update(learning_rate)
            return means

    def _loss(self, batch: ClipBatch | DeviceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        with self.clock.measure("transfer"):
            device_batch = self.feed.to_device(batch)
        precision = self._settings.runtime.precision
        with self.clock.measure("forward"):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16"):
                outputs = self._reduction.forward(device_batch.clip_BCTHW)
            outputs = {name: t.to(self._dtype) for name, t in outputs.items()}
            return self._task.loss(outputs, device_batch.targets)

    def _update(self, learning_rate: float) -> None:
        """Change the parameters by their mean gradients."""
        groups = self.optimizer.param_groups
        for group in groups:
            group["lr"] = learning_rate
        norm = self._settings.optimizer.clip_gradient_norm
        if norm is not None:
            nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], norm)
        self.optimizer.step()


def _is_exact(runtime: RuntimeConfig, device: torch.device) -> bool:
    if runtime.reduction == "auto":
        return device.type == "cpu"
    return runtime.reduction == "exact"
