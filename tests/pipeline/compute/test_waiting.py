"""Which task an idle actor gets, and which tasks are announced to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from distinit.pipeline.compute.waiting import WaitingTasks

TASKS = [f"task {number}" for number in range(8)]
"""Tasks are compared by identity: the tests use these objects only."""


def first_four(waiting: Iterable[str]) -> Iterable[str]:
    return islice(waiting, 4)


def queue(count: int = len(TASKS)) -> WaitingTasks[str]:
    return WaitingTasks(TASKS[:count], first_four)


def test_one_actor_is_told_of_the_next_tasks_and_gets_them_in_order() -> None:
    waiting = queue()
    own: Sequence[str] = ()
    got = []
    while len(waiting):
        task = waiting.take(own, [])
        own = waiting.announce(own, [], 1)
        got.append((task, list(own)))
    assert got == [(task, TASKS[at + 1 : at + 5]) for at, task in enumerate(TASKS)]


def test_an_actor_that_is_ready_first_is_told_of_no_more_than_its_share() -> None:
    waiting = queue(6)
    assert waiting.take((), []) == TASKS[0]
    first = waiting.announce((), [], 2)
    assert waiting.take((), [first]) == TASKS[4]
    second = waiting.announce((), [first], 2)
    assert (first, second) == (tuple(TASKS[1:4]), (TASKS[5],))


def test_an_idle_actor_takes_its_own_then_a_free_one_then_the_last_of_the_actor_with_most() -> None:
    waiting = queue(6)
    own, others = TASKS[5:6], [TASKS[:1], TASKS[1:4]]
    taken = [waiting.take(own, others) for _ in range(4)]
    assert taken == [TASKS[number] for number in (5, 4, 3, 2)]


def test_a_task_that_another_actor_took_is_announced_no_more_and_others_follow() -> None:
    waiting = queue()
    own = waiting.announce((), [], 1)
    assert waiting.take((), [own, TASKS[4:]]) == TASKS[3]
    assert waiting.announce(own, [TASKS[4:5]], 1) == (*TASKS[:3], TASKS[5])


def test_tasks_announced_to_an_actor_that_died_are_not_announced_again_but_run() -> None:
    waiting = queue(6)
    lost = waiting.take((), [])
    waiting.suspect(TASKS[1:3])
    waiting.put_back(lost)
    assert waiting.take((), []) == TASKS[0]
    own = waiting.announce((), [], 1)
    assert own == tuple(TASKS[3:6])
    assert [waiting.take(own, []) for _ in range(5)] == [*TASKS[3:6], *TASKS[1:3]]
