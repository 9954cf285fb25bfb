"""Runs all tasks in this process, with one worker and without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from distinit.pipeline.compute.executor import (
    Ahead,
    Closable,
    Event,
    Finished,
    OnDeath,
    Progressed,
    Worker,
    WorkerFactory,
    none_ahead,
)

__all__ = ["InProcessExecutor"]


class InProcessExecutor:
    """Runs tasks one after another; if the worker dies, this process dies."""

    def __init__(self) -> None:
        self._draining = False

    def run[TaskT, ResultT](
        self,
        factory: WorkerFactory[TaskT, ResultT],
        tasks: Sequence[TaskT],
        on_death: OnDeath[TaskT],
        ahead: Ahead[TaskT] = none_ahead,
    ) -> Iterator[Event[TaskT, ResultT]]:
        """See Executor. The worker is built only if there is a task."""
        if not tasks:
            return
        worker = factory()
        try:
            yield from self._run(worker, tasks, ahead)
        finally:
            if isinstance(worker, Closable):
                worker.close()

    def _run[TaskT, ResultT](
        self, worker: Worker[TaskT, ResultT], tasks: Sequence[TaskT], ahead: Ahead[TaskT]
    ) -> Iterator[Event[TaskT, ResultT]]:
        self._draining = False
        for position, task in enumerate(tasks):
            if self._draining:
                return
            notes = worker.run(task, tuple(ahead(islice(tasks, position + 1, None))))
            try:
                while True:
                    try:
                        note = next(notes)
                    except StopIteration as stop:
                        yield Finished(task, stop.value)
                        break
                    yield Progressed(task, note)
            finally:
                notes.close()

    def drain(self) -> None:
        """See Executor."""
        self._draining = True

    def close(self) -> None:
        """Nothing to free."""
