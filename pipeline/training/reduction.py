"""From the shards of a step to the means over all shards: gradients, batch norm, metrics.

Both ways compute the same means, and batch norm normalises within a shard, never over the global
batch (paper section 4: per GPU).

- ``ExactReduction``: one all-reduce after the backward pass of all shards. On a CPU the sums are
  computed in float64 and rounded once, so that their order, which depends on the number of workers,
  does not change the result.
- ``OverlappedReduction``: DistributedDataParallel, which sums gradients while the backward pass is
  still running. The way for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.collective import Collective
from distinit.pipeline.training.running_statistics import RunningStatistics

__all__ = ["ExactReduction", "OverlappedReduction", "Reduction", "new_reduction"]


class Reduction(Protocol):
    """What happens around the forward and backward passes of a step."""

    sum_dtype: torch.dtype
    """The type in which metrics are summed."""

    @property
    def forward(self) -> Callable[[Tensor], Mapping[str, Tensor]]:
        """The student, as the forward pass has to call it."""

    def begin_step(self) -> None:
        """Discard the gradients of the last step."""

    def shard(self, *, is_last: bool) -> Any:
        """A context manager around the forward and backward pass of one of this worker's shards.

        ``is_last``: whether it is the worker's last one of this step.
        """

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of a shard's mean loss."""

    def finish(self, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give each parameter the mean gradient over all shards.

        ``metrics``: sums over this worker's shards. Returns their means over all shards.
        """


def new_reduction(
    student: Student, shards: int, collective: Collective, *, exact: bool, compiled: bool
) -> Reduction:
    """The reduction for a student that is already on its device.

    ``compiled``: whether to use torch.compile for it.
    """
    if exact:
        return ExactReduction(student, shards, collective, compiled=compiled)
    return OverlappedReduction(student, shards, collective, compiled=compiled)


def _device_and_dtype(student: Student) -> tuple[torch.device, torch.dtype]:
    parameter = next(student.parameters())
    return parameter.device, parameter.dtype


class ExactReduction:
    """See the module. ``shards`` may be any multiple of the number of workers."""

    def __init__(
        self, student: Student, shards: int, collective: Collective, *, compiled: bool = False
    ) -> None:
        device, dtype = _device_and_dtype(student)
        self.sum_dtype = torch.float64 if device.type == "cpu" else dtype
        self._parameters = [p for p in student.parameters() if p.requires_grad]
        self._shards, self._collective = shards, collective
        self._statistics = RunningStatistics(student, self.sum_dtype if shards > 1 else None)
        self._gradients: list[Tensor] = []
        self.forward: Callable[[Tensor], Mapping[str, Tensor]] = (
            torch.compile(student) if compiled else student
        )

    def begin_step(self) -> None:
        """See Reduction."""
        self._statistics.begin_step()
        self._gradients = []
        for parameter in self._parameters:
            parameter.grad = None

    @contextmanager
    def shard(self, *, is_last: bool) -> Iterator[None]:
        """See Reduction."""
        self._statistics.begin_shard()
        yield
        self._statistics.end_shard()

    def backward(self, loss: Tensor) -> None:
        """See Reduction."""
        torch.autograd.backward(loss)
        # Zero if there is none: without a gradient weight decay is skipped, on this worker only.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        if self._shards > 1:
            if not self._gradients:
                self._gradients = [torch.zeros_like(g, dtype=self.sum_dtype) for g in gradients]
            for total, gradient in zip(self._gradients, gradients, strict=True):
                total.add_(gradient)
            for parameter in self._parameters:
                parameter.grad = None
        else:
            self._gradients = gradients

    def finish(self, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See Reduction."""
        names = sorted(metrics)
        values = [metrics[name].reshape(1) for name in names]
        if self._collective.world_size > 1:
            _sum_all(self._collective, [*self._gradients, *self._statistics.sums, *values])
        self._statistics.finish(self._shards)
        for parameter, total in zip(self._parameters, self._gradients, strict=True):
            is_mean = self._shards == 1
            parameter.grad = total if is_mean else (total / self._shards).to(parameter.dtype)
        return {name: value[0] / self._shards for name, value in zip(names, values, strict=True)}


class OverlappedReduction:
    """See the module. Gradients are summed in the type of the parameters."""

    def __init__(
        self, student: Student, shards: int, collective: Collective, *, compiled: bool = False
    ) -> None:
        self._shards, self._collective = shards, collective
        self._own_shards = shards // collective.world_size
        self.sum_dtype = _device_and_dtype(student)[1]
        self._statistics = RunningStatistics(
            student, self.sum_dtype if self._own_shards > 1 else None
        )
        self._ddp: DistributedDataParallel | None = None
        if collective.world_size > 1:
            self._ddp = DistributedDataParallel(
                student,
                **_without_buffers(),  # statistics are averaged in finish
                gradient_as_bucket_view=True,
                static_graph=self._own_shards == 1,  # not with no_sync
            )
        module = student if self._ddp is None else self._ddp
        self.forward: Callable[[Tensor], Mapping[str, Tensor]] = (
            torch.compile(module) if compiled else module
        )
        self._parameters = [p for p in student.parameters() if p.requires_grad]

    def begin_step(self) -> None:
        """See Reduction."""
        for parameter in self._parameters:
            parameter.grad = None
        self._statistics.begin_step()

    @contextmanager
    def shard(self, *, is_last: bool) -> Iterator[None]:
        """See Reduction."""
        self._statistics.begin_shard()
        with nullcontext() if self._ddp is None or is_last else self._ddp.no_sync():
            yield
        self._statistics.end_shard()

    def backward(self, loss: Tensor) -> None:
        """See Reduction."""
        if self._own_shards > 1:
            loss = loss / self._own_shards
        torch.autograd.backward(loss)

    def finish(self, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See Reduction."""
        if self._shards == 1:
            return dict(metrics)
        names = sorted(metrics)
        values = [metrics[name].reshape(1) for name in names]
        if self._collective.world_size > 1:
            _sum_all(self._collective, [*self._statistics.sums, *values])
        self._statistics.finish(self._shards)
        return {name: value[0] / self._shards for name, value in zip(names, values, strict=True)}


def _without_buffers() -> dict[str, Any]:
    """The argument that keeps DistributedDataParallel from copying buffers before each forward."""
    parameters = signature(DistributedDataParallel.__init__).parameters
    new = "forward_sync_buffers"  # the older name gives a warning where both exist
    return {new if new in parameters else "broadcast_buffers": False}


def _sum_all(collective: Collective, tensors: Sequence[Tensor]) -> None:
    """Sum each tensor over the workers with a single all-reduce."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    collective.sum_(flat)
    parts = torch.split(flat, [t.numel() for t in tensors])
    torch._foreach_copy_(list(tensors), [p.view_as(t) for p, t in zip(parts, tensors, strict=True)])
