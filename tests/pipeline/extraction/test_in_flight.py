"""The queue between the threads that decode and the thread that writes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from distinit.pipeline.extraction.in_flight import InFlight, StoppedError

NO_LIMIT = 1 << 40


def submit_in_thread(
    queue: InFlight[str], name: str, frames: int, size: int = 0
) -> Callable[[], bool]:
    """Submit in another thread; the function waits a moment and says whether it was let in."""
    done = threading.Event()

    def submit() -> None:
        try:
            queue.submit(frames, size, lambda: name)
        except StoppedError:
            return
        done.set()

    threading.Thread(target=submit, daemon=True).start()
    return lambda: done.wait(0.2)


def test_a_batch_waits_until_earlier_ones_leave_room() -> None:
    queue: InFlight[str] = InFlight(10, NO_LIMIT)
    queue.submit(6, 0, lambda: "first")
    was_let_in = submit_in_thread(queue, "second", 5)
    assert not was_let_in()
    queue.put("needs no room")
    assert [queue.take(), queue.take()] == ["first", "needs no room"]
    assert not was_let_in()  # taken, but not computed
    queue.release(6, 0)
    assert queue.take() == "second"


def test_bytes_are_limited_too_and_a_batch_larger_than_the_room_is_let_in_alone() -> None:
    queue: InFlight[str] = InFlight(10, 100)
    queue.submit(1, 1000, lambda: "large")
    was_let_in = submit_in_thread(queue, "small", 1, 1)
    assert not was_let_in()
    assert queue.take() == "large"
    queue.release(1, 1000)
    assert queue.take() == "small"


def test_items_come_out_in_the_order_of_their_submission() -> None:
    queue: InFlight[int] = InFlight(NO_LIMIT, NO_LIMIT)
    submitted: list[int] = []

    def submit(item: int) -> int:
        submitted.append(item)
        return item

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda item: queue.submit(1, 0, lambda: submit(item)), range(200)))
    assert [queue.take() for _ in range(200)] == submitted


def test_stopping_ends_every_wait_and_drops_what_is_queued() -> None:
    queue: InFlight[str] = InFlight(1, NO_LIMIT)
    queue.submit(1, 0, lambda: "first")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.submit, 1, 0, lambda: "never")
        queue.stop()
        with pytest.raises(StoppedError):
            waiting.result(60)
    for call in (queue.take, lambda: queue.put("late")):
        with pytest.raises(StoppedError):
            call()
