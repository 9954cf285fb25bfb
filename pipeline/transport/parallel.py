"""Moves many files in several threads, and reports the bytes that have been moved."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from distinit.pipeline.progress import Progress
from distinit.pipeline.transport.receive import Stopped

__all__ = ["Counter", "move_all"]

_MB = 1e6


class Counter:
    """Adds the bytes and files of all threads to one progress bar."""

    def __init__(self, progress: Progress, files: int, files_done: int = 0) -> None:
        self._progress = progress
        self._files, self._files_done = files, files_done
        self._lock = threading.Lock()

    def bytes(self, count: int) -> None:
        """Count bytes, or fewer if ``count`` is negative."""
        with self._lock:
            self._progress.advance(count / _MB, files=(self._files_done, self._files))

    def file(self) -> None:
        """Count one file that is complete."""
        with self._lock:
            self._files_done += 1
            self._progress.advance(0, files=(self._files_done, self._files))


def move_all[T](
    items: Sequence[T],
    move: Callable[[T, Counter, threading.Event], None],
    *,
    workers: int,
    progress: Progress,
    what: str,
    total_bytes: int | None,
    done_bytes: int = 0,
) -> None:
    """Call ``move`` for each item, in ``workers`` threads.

    ``total_bytes`` are those of all items and of what was moved earlier, ``done_bytes``. The
    first error ends the other threads at their next block and is raised; so is an interruption.
    """
    total = None if total_bytes is None else round(total_bytes / _MB, 3)
    progress.start(what, total, "MB", round(done_bytes / _MB, 3))
    counter, stopping = Counter(progress, len(items)), threading.Event()

    def move_one(item: T) -> None:
        if not stopping.is_set():
            move(item, counter, stopping)
            counter.file()

    with ThreadPoolExecutor(workers) as threads:
        futures = [threads.submit(move_one, item) for item in items]
        try:
            for future in as_completed(futures):
                error = future.exception()
                if error is not None and not isinstance(error, Stopped):
                    raise error
        finally:
            stopping.set()
            threads.shutdown(cancel_futures=True)
            progress.finish()
