"""The executor interface: runs tasks on workers, in any order, until each has a result.

A *worker* holds what is expensive to build, such as a teacher on a device, and turns a task into
a stream of notes that ends with the result. Executors differ only in where the workers live.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "Ahead",
    "Closable",
    "Executor",
    "Finished",
    "OnDeath",
    "Progressed",
    "Worker",
    "WorkerFactory",
    "none_ahead",
]


class Worker[TaskT, ResultT](Protocol):
    """Built once per process by a factory; runs tasks one after another."""

    def run(self, task: TaskT, upcoming: Sequence[TaskT]) -> Generator[Any, None, ResultT]:
        """Yield progress notes (small, picklable); return the result.

        ``upcoming``: what this worker probably runs next, in this order. The worker may prepare
        for these tasks, as long as it can abandon that: another worker may get them. Any exception
        ends the whole run: the failure of a single video must be part of the result instead.
        """


@runtime_checkable
class Closable(Protocol):
    """A worker that may hold resources for upcoming tasks."""

    def close(self) -> None:
        """Free these resources; these tasks may never come."""


type WorkerFactory[TaskT, ResultT] = Callable[[], Worker[TaskT, ResultT]]


@dataclass(frozen=True, slots=True)
class Progressed[TaskT]:
    """A note from a worker that is still busy with ``task``."""

    task: TaskT
    note: Any


@dataclass(frozen=True, slots=True)
class Finished[TaskT, ResultT]:
    """``task`` is finished."""

    task: TaskT
    result: ResultT


type Event[TaskT, ResultT] = Progressed[TaskT] | Finished[TaskT, ResultT]


class Ahead[TaskT](Protocol):
    """Decides how many tasks a worker is told of in advance."""

    def __call__(self, waiting: Iterable[TaskT]) -> Iterable[TaskT]:
        """The first few of the tasks that wait."""


def none_ahead(waiting: Iterable[object]) -> Iterable[Any]:
    """Workers are told of no task in advance."""
    return ()


class OnDeath[TaskT](Protocol):
    """Decides how to continue with a task whose worker process died."""

    def __call__(self, task: TaskT, last_note: Any, reason: str) -> TaskT:
        """Return the task to run instead: the same, or one without the cause of the death.

        Raises ComputeError to end the run.
        """


class Executor(Protocol):
    """Runs tasks; ``close`` frees the workers."""

    def run[TaskT, ResultT](
        self,
        factory: WorkerFactory[TaskT, ResultT],
        tasks: Sequence[TaskT],
        on_death: OnDeath[TaskT],
        ahead: Ahead[TaskT] = none_ahead,
    ) -> Iterator[Event[TaskT, ResultT]]:
        """Yield events until every task has finished. An exception of a worker is raised here."""

    def drain(self) -> None:
        """Start no more tasks: ``run`` ends when those in progress are finished."""

    def close(self) -> None:
        """Stop the workers that this executor started."""
