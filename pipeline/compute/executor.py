"""The executor contract: run tasks on workers, in any order, each until it has a result.

A *worker* holds what is expensive to build (a teacher on a device) and turns one task into a
stream of events that ends with the result. Executors differ only in where workers live.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = ["Closable", "Executor", "Finished", "OnDeath", "Progressed", "Worker", "WorkerFactory"]


class Worker[TaskT, ResultT](Protocol):
    """Built once per process by a factory; runs tasks one after another."""

    def run(self, task: TaskT, after: TaskT | None) -> Generator[Any, None, ResultT]:
        """Yield progress notes (small, picklable); return the result.

        ``after`` will probably be this worker's next task: it may begin with what takes long, if
        it can give that up again.
        Exceptions end the whole run: what concerns one video only is part of the result.
        """


@runtime_checkable
class Closable(Protocol):
    """A worker that may hold something for a task that does not come."""

    def close(self) -> None:
        """Free it."""


type WorkerFactory[TaskT, ResultT] = Callable[[], Worker[TaskT, ResultT]]


@dataclass(frozen=True, slots=True)
class Progressed[TaskT]:
    """A note from a worker that is still busy with ``task``."""

    task: TaskT
    note: Any


@dataclass(frozen=True, slots=True)
class Finished[TaskT, ResultT]:
    """``task`` is done."""

    task: TaskT
    result: ResultT


type Event[TaskT, ResultT] = Progressed[TaskT] | Finished[TaskT, ResultT]


class OnDeath[TaskT](Protocol):
    """Decides what becomes of a task whose worker process died."""

    def __call__(self, task: TaskT, last_note: Any, reason: str) -> TaskT:
        """Return the task to try instead (the same, or without the culprit).

        Raises ComputeError to end the run.
        """


class Executor(Protocol):
    """Runs tasks; ``close`` frees the workers."""

    def run[TaskT, ResultT](
        self,
        factory: WorkerFactory[TaskT, ResultT],
        tasks: Sequence[TaskT],
        on_death: OnDeath[TaskT],
    ) -> Iterator[Event[TaskT, ResultT]]:
        """Yield events until every task has finished. An exception of a worker is raised here."""

    def drain(self) -> None:
        """Begin no more tasks: ``run`` ends with those that are under way."""

    def close(self) -> None:
        """Stop the workers that this executor started."""
