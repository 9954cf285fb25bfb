"""The samples of an epoch: the same for any number of workers, and judged in a thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import toys
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.progress import NullProgress
from distinit.pipeline.training import epoch_samples
from distinit.pipeline.training.collective import SingleProcess
from distinit.pipeline.training.epoch_samples import EpochSamples, samples_of
from distinit.pipeline.training.loop import train
from distinit.pipeline.training.task import ClipBatch
from distinit.schemas.errors import CacheCorruptError

COUNT, SKIPPED = 32, 9
CPU = torch.device("cpu")


class Judged(toys.ToyTask):
    """Records the samples that are judged, and the threads that judge them."""

    def __init__(self) -> None:
        super().__init__(count=COUNT, skipped=SKIPPED)
        self.calls: list[tuple[int, list[int], str]] = []

    def keeps(self, epoch: int, samples_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        self.calls.append((epoch, samples_N.tolist(), threading.current_thread().name))
        return super().keeps(epoch, samples_N)

    def judged(self, epoch: int) -> list[int]:
        return [s for found, samples, _ in self.calls if found == epoch for s in samples]


class ThreadWorkers:
    """Workers that are threads of this process."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.barrier = threading.Barrier(world_size)
        self.tensors: list[Tensor] = [torch.empty(0)] * world_size

    def worker(self, rank: int) -> Any:
        workers = self

        class Worker:
            world_size = workers.world_size

            def __init__(self) -> None:
                self.rank = rank

            def sum_(self, tensor: Tensor) -> None:
                workers.tensors[rank] = tensor.clone()
                workers.barrier.wait()
                tensor.copy_(torch.stack(workers.tensors).sum(dim=0))
                workers.barrier.wait()

        return Worker()


def expected(epoch: int) -> list[int]:
    task = toys.ToyTask(count=COUNT, skipped=SKIPPED)
    order = task.order(epoch)
    return order[task.keeps(epoch, order)].tolist()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_any_number_of_workers_gives_the_same_samples(
    world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_samples, "JUDGE_BLOCK", 3)
    workers = ThreadWorkers(world_size)
    tasks = [Judged() for _ in range(world_size)]

    def samples(rank: int) -> list[list[int]]:
        with closing(EpochSamples(tasks[rank], workers.worker(rank), CPU)) as found:
            return [found.of(epoch).tolist() for epoch in (0, 1, 5)]

    with ThreadPoolExecutor(world_size) as pool:
        results = list(pool.map(samples, range(world_size)))
    assert results == [[expected(0), expected(1), expected(5)]] * world_size
    assert len(expected(0)) == COUNT - SKIPPED
    shares = [task.judged(0) for task in tasks]
    assert [s for share in shares for s in share] == list(range(COUNT)), "each is judged once"
    assert max(map(len, shares)) - min(map(len, shares)) <= 3


def test_the_next_epoch_is_judged_in_a_thread_while_the_main_one_goes_on() -> None:
    task = Judged()
    with closing(EpochSamples(task, SingleProcess(), CPU)) as samples:
        assert samples.of(0).tolist() == expected(0)
        samples.prepare(1)
        assert samples.of(1).tolist() == expected(1)
    names = [(epoch, name.rpartition("_")[0]) for epoch, _, name in task.calls]
    assert names == [(0, "judge"), (1, "judge")]


def test_a_task_that_skips_nothing_judges_nothing() -> None:
    task = Judged()
    task.skipped = 0
    assert samples_of(task, 3).tolist() == task.order(3).tolist()
    assert task.calls == []


def test_an_error_while_judging_is_raised_where_the_samples_are_needed() -> None:
    class Broken(Judged):
        def keeps(self, epoch: int, samples_N: NDArray[np.int64]) -> NDArray[np.bool_]:
            if epoch == 1:
                raise CacheCorruptError("a damaged chunk")
            return super().keeps(epoch, samples_N)

    with closing(EpochSamples(Broken(), SingleProcess(), CPU)) as samples:
        samples.of(0)
        samples.prepare(1)
        with pytest.raises(CacheCorruptError, match="a damaged chunk"):
            samples.of(1)


def test_closing_stops_judging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_samples, "JUDGE_BLOCK", 1)
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Judged):
        def keeps(self, epoch: int, samples_N: NDArray[np.int64]) -> NDArray[np.bool_]:
            entered.set()
            go_on.wait()
            return super().keeps(epoch, samples_N)

    task = Slow()
    samples = EpochSamples(task, SingleProcess(), CPU)
    samples.prepare(0)
    entered.wait()
    threading.Timer(0.1, go_on.set).start()
    samples.close()
    assert len(task.calls) < COUNT


class KilledError(Exception):
    """Stands for a killed process."""


class Killed(Judged):
    """Stops after some batches."""

    def __init__(self, loads: int) -> None:
        super().__init__()
        self.left = loads

    def load(self, epoch: int, samples_B: NDArray[np.int64]) -> ClipBatch:
        self.left -= 1
        if self.left < 0:
            raise KilledError
        return super().load(epoch, samples_B)


@pytest.mark.parametrize("loads", [3, 5, 7])
def test_a_run_that_skips_samples_resumes_in_the_middle_of_an_epoch(
    loads: int, tmp_path: Path
) -> None:
    settings = toys.make_settings(runtime={"checkpoint_steps": 1})
    whole, cut = toys.make_run(tmp_path / "whole"), toys.make_run(tmp_path / "cut")
    outcome = train(Judged(), settings, whole, NullProgress())
    assert outcome.global_steps == 3 * ((COUNT - SKIPPED) // 4)
    with pytest.raises(KilledError):
        train(Killed(loads), settings, cut, NullProgress())
    resumed = Judged()
    train(resumed, settings, cut, NullProgress())
    assert toys.curve_of(cut) == toys.curve_of(whole)
    assert {epoch for epoch, _, _ in resumed.calls} == set(range(loads // 5, 3))
