"""The queue of tasks: which task an idle actor gets, and of which it is told in advance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from distinit.pipeline.compute.executor import Ahead

__all__ = ["WaitingTasks"]


class WaitingTasks[TaskT]:
    """Tasks that wait for an actor. Each actor is told which of them will probably be its next.

    These stay in the queue, where an actor that is idle and finds no others takes them: so no task
    is lost with an actor, and no actor idles while tasks are waiting.

    Tasks are compared by identity. ``own``: what was announced to the actor that is now idle.
    ``others``: what was announced to each of the other actors.
    """

    def __init__(self, tasks: Sequence[TaskT], ahead: Ahead[TaskT]) -> None:
        """``ahead`` picks, from the tasks that an actor may be told of, those that it is told."""
        self._tasks = list(tasks)
        self._ahead = ahead
        self._suspects: list[TaskT] = []

    def __len__(self) -> int:
        return len(self._tasks)

    def take(self, own: Sequence[TaskT], others: Sequence[Sequence[TaskT]]) -> TaskT:
        """Remove the next task for an idle actor: the first of ``own`` that still waits.

        Else the first that was announced to no other, else the last of those that were announced
        to the actor with most of them: that is the one for which least was prepared.
        """
        free = islice(chain(self._still_waiting(own), self._unannounced(others)), 1)
        candidates = [*free] or max(([*self._still_waiting(o)] for o in others), key=len)
        task = candidates[-1]
        del self._tasks[next(i for i, other in enumerate(self._tasks) if other is task)]
        return task

    def announce(
        self, own: Sequence[TaskT], others: Sequence[Sequence[TaskT]], actors: int
    ) -> Sequence[TaskT]:
        """What to announce to an actor that has just got a task: ``own``, and further tasks.

        Further ones only up to its share of all that wait, 1 / ``actors``: so the last tasks are
        not all announced to the actor that was ready first.
        """
        kept = [*self._still_waiting(own)]
        share = math.ceil(len(self._tasks) / actors)
        excluded = _identities([*kept, *self._suspects])
        free = (task for task in self._unannounced(others) if id(task) not in excluded)
        return tuple(self._ahead(chain(kept, islice(free, max(0, share - len(kept))))))

    def put_back(self, task: TaskT) -> None:
        """The actor that had taken ``task`` is lost: it is the first again."""
        self._tasks.insert(0, task)

    def suspect(self, own: Sequence[TaskT]) -> None:
        """An actor has died, perhaps of one of these tasks, which were announced to it.

        They are not announced again: which one it was shows only once it is the task of an actor.
        """
        self._suspects += self._still_waiting(own)

    def _still_waiting(self, tasks: Sequence[TaskT]) -> Iterator[TaskT]:
        waiting = _identities(self._tasks) if tasks else set()
        return (task for task in tasks if id(task) in waiting)

    def _unannounced(self, others: Sequence[Sequence[TaskT]]) -> Iterator[TaskT]:
        announced = _identities([*chain.from_iterable(others)])
        return (task for task in self._tasks if id(task) not in announced)


def _identities(tasks: Sequence[object]) -> set[int]:
    return {id(task) for task in tasks}
