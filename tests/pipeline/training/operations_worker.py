"""Counts the operations of a training step: ``operations_worker.py WORLD FOLDER``.

Each worker is a real process of a gloo group. Rank 0 prints JSON: the operations that PyTorch
dispatched in one step of ``Stepper`` with the overlapped reduction, and in one step of a loop that
is written by hand for the same network. Views are not counted: they launch no kernel.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed
from helpers import toys
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from distinit.pipeline.students.heads import Student, new_student
from distinit.pipeline.training.collective import ProcessGroup, SingleProcess
from distinit.pipeline.training.step import Stepper
from distinit.pipeline.training.task import ClipBatch
from distinit.schemas.training import StudentConfig

CPU = torch.device("cpu")


class Operations(TorchDispatchMode):
    """Counts dispatched operations, without views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


class VideoTask(toys.ToyTask):
    """The toy task with a real network and clips of its size."""

    def build(self) -> Student:
        return new_student(StudentConfig(name="tiny_r2plus1d_10"), {"toy": 3}, 0)

    def load(self, epoch: int, samples_B: Any) -> ClipBatch:
        batch = super().load(epoch, samples_B)
        pixels = torch.zeros(len(samples_B), 4, 3, 16, 16, dtype=torch.uint8)
        return ClipBatch(pixels, batch.flip_B, batch.targets)


def ours(task: VideoTask, world: int, rank: int) -> Callable[[], object]:
    collective = ProcessGroup() if world > 1 else SingleProcess()
    settings = toys.make_settings(runtime={"shards": world, "reduction": "overlapped"})
    stepper = Stepper(task.build(), task, settings, collective, CPU)
    batch = task.load(0, np.arange(4))
    return lambda: stepper.step([(rank, batch)], 0, 0.1)


def by_hand(task: VideoTask, world: int) -> Callable[[], object]:
    student: nn.Module = task.build()
    if world > 1:
        student = DistributedDataParallel(
            student, forward_sync_buffers=False, gradient_as_bucket_view=True, static_graph=True
        )
    optimizer = torch.optim.SGD(
        student.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    mean, std = (torch.full((3, 1, 1, 1), value) for value in (0.5, 0.25))
    batch = task.load(0, np.arange(4))
    pixels = batch.pixels_BTCHW.transpose(1, 2)
    flip_B = batch.flip_B.view(-1, 1, 1, 1, 1)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        clip = (pixels.float() / 255 - mean) / std
        clip = torch.where(flip_B, clip.flip(-1), clip)
        loss, _ = task.loss(student(clip), batch.targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def count(step: Callable[[], object]) -> int:
    """Operations of the fourth step: until then DDP rebuilds its buckets."""
    for _ in range(3):
        step()
    with Operations() as operations:
        step()
    return operations.count


def work(rank: int, world: int, folder: str) -> None:
    if world > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world
        )
    task = VideoTask()
    counts = {"ours": count(ours(task, world, rank)), "by_hand": count(by_hand(task, world))}
    if rank == 0:
        print(json.dumps(counts), flush=True)
    if world > 1:
        torch.distributed.destroy_process_group()


def main(world: int, folder: str) -> None:
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=work, args=(rank, world, folder)) for rank in range(world)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
