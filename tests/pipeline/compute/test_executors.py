"""Both executors behave alike: every task finishes once, and its notes arrive in order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from distinit.pipeline.compute.executor import Executor, Finished, Progressed
from distinit.pipeline.compute.in_process import InProcessExecutor
from distinit.pipeline.compute.ray_actors import RayExecutor
from distinit.schemas.compute import ComputeConfig
from distinit.schemas.errors import ComputeError, StorageError


class Squares:
    """Yields the notes 0..task-1; the result is task squared."""

    def run(self, task: int, upcoming: Sequence[int]) -> Generator[int, None, int]:
        yield from range(task)
        return task * task


class YieldsUpcoming:
    """Its only note are the upcoming tasks, as announced by the executor."""

    def run(self, task: str, upcoming: Sequence[str]) -> Generator[str, None, str]:
        yield "".join(upcoming)
        return task


class WaitsForClose:
    """Task "first" ends when another worker is closed; results are the announced tasks."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def run(self, task: str, upcoming: Sequence[str]) -> Generator[None, None, Sequence[str]]:
        yield
        deadline = time.monotonic() + 240
        while task == "first" and not self.flag.exists():
            if time.monotonic() > deadline:
                raise StorageError("no other worker was closed")
            time.sleep(0.05)
        return upcoming

    def close(self) -> None:
        self.flag.touch()


class DiskFull:
    def run(self, task: int, upcoming: Sequence[int]) -> Generator[int, None, int]:
        yield 0
        raise StorageError("cannot write x", found="No space left on device", remedy="free some")


class DiesOnce:
    """Kills its own process at task 3, but only once: ``flag`` exists afterwards."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def run(self, task: int, upcoming: Sequence[int]) -> Generator[str, None, int]:
        yield f"at {task}"
        if task == 3 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task


class AlwaysDies:
    def run(self, task: int, upcoming: Sequence[int]) -> Generator[str, None, int]:
        yield "started"
        os.kill(os.getpid(), signal.SIGKILL)
        return task


def refuse(task: Any, last_note: Any, reason: str) -> Any:
    raise ComputeError("a worker died", found=reason)


@pytest.fixture(params=["in_process", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "in_process":
        made: Executor = InProcessExecutor()
    else:
        request.getfixturevalue("ray_session")
        made = RayExecutor(ComputeConfig(workers=2))
    yield made
    made.close()


def test_every_task_finishes_once_with_its_notes_in_order(executor: Executor) -> None:
    notes: dict[int, list[int]] = {}
    results: dict[int, int] = {}
    for event in executor.run(Squares, [3, 0, 5, 2], refuse):
        if isinstance(event, Progressed):
            notes.setdefault(event.task, []).append(event.note)
        else:
            assert isinstance(event, Finished)
            assert event.task not in results
            results[event.task] = event.result
    assert results == {3: 9, 0: 0, 5: 25, 2: 4}
    assert notes == {3: [0, 1, 2], 5: [0, 1, 2, 3, 4], 2: [0, 1]}


def test_an_error_raised_by_a_worker_ends_the_run_unchanged(executor: Executor) -> None:
    with pytest.raises(StorageError, match="No space left") as caught:
        list(executor.run(DiskFull, [1], refuse))
    assert caught.value.remedy == "free some"


def test_in_process_closes_the_worker_if_the_caller_stops_early() -> None:
    closed = []

    class Watched:
        def run(self, task: int, upcoming: Sequence[int]) -> Generator[int, None, int]:
            try:
                yield 1
                yield 2
            finally:
                closed.append(task)
            return 0

    events = InProcessExecutor().run(Watched, [7], refuse)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert closed == [7]


def test_in_process_builds_no_worker_without_tasks() -> None:
    def never() -> Squares:
        raise AssertionError("built")

    assert list(InProcessExecutor().run(never, [], refuse)) == []


def next_two(waiting: Iterable[str]) -> Iterable[str]:
    return islice(waiting, 2)


def announced(executor: Executor) -> dict[str, str]:
    """The upcoming tasks that were announced with each task."""
    events = executor.run(YieldsUpcoming, ["a", "b", "c", "d"], refuse, next_two)
    return {event.task: event.note for event in events if isinstance(event, Progressed)}


def test_in_process_a_worker_gets_upcoming_tasks_in_advance() -> None:
    assert announced(InProcessExecutor()) == {"a": "bc", "b": "cd", "c": "d", "d": ""}


@pytest.mark.ray
def test_an_actor_gets_upcoming_tasks_in_advance(ray_session: None) -> None:
    executor = RayExecutor(ComputeConfig(workers=1))
    assert announced(executor) == {"a": "bc", "b": "cd", "c": "d", "d": ""}
    executor.close()


@pytest.mark.ray
def test_an_idle_actor_takes_an_announced_task_of_a_busy_one_and_is_then_closed(
    ray_session: None, tmp_path: Path
) -> None:
    executor = RayExecutor(ComputeConfig(workers=2))
    tasks = ["first", "second", "third"]
    events = list(executor.run(lambda: WaitsForClose(tmp_path / "closed"), tasks, refuse, next_two))
    executor.close()
    results = {event.task: event.result for event in events if isinstance(event, Finished)}
    assert results == {"first": ("second",), "third": (), "second": ()}


@pytest.mark.ray
def test_the_task_of_a_killed_actor_is_run_again_after_asking_on_death(
    ray_session: None, tmp_path: Path
) -> None:
    flag, asked = tmp_path / "died", []

    def again(task: int, last_note: Any, reason: str) -> int:
        asked.append((task, last_note))
        return task

    executor = RayExecutor(ComputeConfig(workers=2))
    events = list(executor.run(lambda: DiesOnce(flag), [1, 2, 3, 4], again))
    executor.close()
    assert sorted(e.result for e in events if isinstance(e, Finished)) == [1, 2, 3, 4]
    assert asked == [(3, "at 3")]


@pytest.mark.ray
def test_the_run_ends_when_on_death_gives_up(ray_session: None) -> None:
    executor = RayExecutor(ComputeConfig(workers=1))
    with pytest.raises(ComputeError, match="a worker died"):
        list(executor.run(AlwaysDies, [1], refuse))
    executor.close()


@pytest.mark.ray
def test_more_workers_than_the_cluster_has_are_refused(ray_session: None) -> None:
    with pytest.raises(ComputeError, match="too small") as caught:
        RayExecutor(ComputeConfig(workers=500))
    assert "--workers" in str(caught.value)
