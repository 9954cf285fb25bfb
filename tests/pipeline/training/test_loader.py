"""Prefetching keeps the order, is bounded, passes errors on and measures the time waited."""

from __future__ import annotations

import threading
import time

import pytest

from distinit.pipeline.training.loader import prefetch


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_items_have_the_order_of_the_requests(threads: int) -> None:
    def load(i: int) -> int:
        time.sleep(0.01 if i % 3 == 0 else 0)
        return i * i

    items = [item for item, _ in prefetch(load, range(20), threads)]
    assert items == [i * i for i in range(20)]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bounded_number_of_items_is_loaded_in_advance(threads: int) -> None:
    started = []
    lock = threading.Lock()

    def load(i: int) -> int:
        with lock:
            started.append(i)
        return i

    stream = prefetch(load, range(100), threads)
    assert next(stream)[0] == 0
    time.sleep(0.05)
    assert len(started) == threads + 1
    stream.close()


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_is_raised_in_place_of_its_item(threads: int) -> None:
    def load(i: int) -> int:
        if i == 2:
            raise KeyError("two")
        return i

    stream = prefetch(load, range(5), threads)
    assert [next(stream)[0], next(stream)[0]] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(stream)


@pytest.mark.parametrize("threads", [0, 1])
def test_waiting_is_measured(threads: int) -> None:
    def load(i: int) -> int:
        time.sleep(0.03)
        return i

    waits = [seconds for _, seconds in prefetch(load, range(3), threads)]
    assert sum(waits) > 0.05
