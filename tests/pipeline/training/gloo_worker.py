"""Trains the toy task in several real processes: ``gloo_worker.py '[JOB, ...]'``.

Each process writes its student's tensors, its gradients and its losses. They are forked from one
process that has already imported everything.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from typing import Any

import numpy as np
import torch
import torch.distributed
from helpers import toys
from safetensors.torch import save_file

from distinit.pipeline.training.collective import Collective, ProcessGroup, SingleProcess
from distinit.pipeline.training.step import Stepper


def work(
    rank: int,
    folder: str,
    world: int,
    shards: int,
    steps: int,
    dtype: str,
    norm: bool,
    optimizer: dict[str, Any],
    reduction: str = "auto",
) -> None:
    if world > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world
        )
    collective: Collective = ProcessGroup() if world > 1 else SingleProcess()
    task = toys.ToyTask(count=32, norm=norm, dtype=getattr(torch, dtype))
    settings = toys.make_settings(optimizer, {"shards": shards, "reduction": reduction})
    stepper = Stepper(task.build(), task, settings, collective, torch.device("cpu"))
    losses = []
    for step in range(steps):
        order = np.random.default_rng(step).permutation(32)
        mine = [
            (shard, task.load(0, order[4 * shard : 4 * shard + 4]))
            for shard in range(rank, shards, world)
        ]
        losses.append(stepper.step(mine, step, 0.1)["loss"])
    tensors = dict(stepper.student.state_dict()) | {"losses": torch.stack(losses)}
    for name, parameter in stepper.student.named_parameters():
        assert parameter.grad is not None
        tensors[f"grad.{name}"] = parameter.grad
    save_file({name: t.contiguous() for name, t in tensors.items()}, f"{folder}/{rank}.safetensors")
    if world > 1:
        torch.distributed.destroy_process_group()


def main(jobs: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    for job in jobs:
        workers = [fork.Process(target=work, args=(r,), kwargs=job) for r in range(job["world"])]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0, job


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
