"""Loads batches in advance, in threads, and yields them in order.

Threads are enough: JPEG decoding, cropping and cache reads release the interpreter lock, and
nothing has to be copied between processes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["prefetch"]


def prefetch[Request, Item](
    load: Callable[[Request], Item], requests: Iterable[Request], threads: int
) -> Generator[tuple[Item, float]]:
    """Yield (load(request), seconds the caller had to wait for it) for each request in order.

    With ``threads`` 0 each item is loaded when it is requested. Otherwise at most ``threads + 1``
    items are loaded in advance. An exception of ``load`` is raised in place of its item.
    """
    if threads == 0:
        for request in requests:
            began = time.perf_counter()
            item = load(request)
            yield item, time.perf_counter() - began
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        pending: deque[Future[Item]] = deque()
        for request in requests:
            pending.append(pool.submit(load, request))
            if len(pending) > threads:
                yield _timed(pending.popleft())
        while pending:
            yield _timed(pending.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _timed[Item](future: Future[Item]) -> tuple[Item, float]:
    began = time.perf_counter()
    return future.result(), time.perf_counter() - began
