"""Moves many files in several threads, and reports the bytes that have been moved."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from distinit.pipeline.progress import Progress
from distinit.pipeline.transport.receive import Stopped

__all__ = ["Counter", "move_all"]

_MB = 1e6


class Counter:
    """Adds the bytes and files of all threads to one progress bar."""

    def __init__(self, progress: Progress, files: int, *, by_file: bool) -> None:
        """``by_file``: the bar counts files; otherwise it counts MB."""
        self._progress, self._by_file = progress, by_file
        self._files, self._files_done = files, 0
        self._lock = threading.Lock()

    def bytes(self, count: int) -> None:
        """Count bytes, or fewer if ``count`` is negative."""
        if self._by_file:
            return
        with self._lock:
            self._progress.advance(count / _MB, files=(self._files_done, self._files))

    def file(self) -> None:
        """Count one file that is complete."""
        with self._lock:
            self._files_done += 1
            if self._by_file:
                self._progress.advance()
            else:
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

    ``total_bytes`` are those of all items and of what was moved earlier, ``done_bytes``; None if
    they are not known: then the progress is in files. Nothing is shown without items. The
    first error ends the other threads at their next block and is raised. An interruption is raised
    at once: a thread that waits for a server ends with the process, or when the server responds.
    """
    if not items:
        return
    if total_bytes is None:
        progress.start(what, len(items), "files")
    else:
        progress.start(what, round(total_bytes / _MB, 3), "MB", round(done_bytes / _MB, 3))
    counter = Counter(progress, len(items), by_file=total_bytes is None)
    stopping = threading.Event()

    def move_one(item: T) -> None:
        if not stopping.is_set():
            move(item, counter, stopping)
            counter.file()

    try:
        _in_threads(items, move_one, min(workers, len(items)), stopping)
    finally:
        stopping.set()
        progress.finish()


def _in_threads[T](
    items: Sequence[T], work: Callable[[T], None], workers: int, stopping: threading.Event
) -> None:
    """Call ``work`` for each item; raises its first error once all threads have ended.

    The threads are daemons, which the end of the process does not wait for, as it would for those
    of a ThreadPoolExecutor.
    """
    left: queue.SimpleQueue[T] = queue.SimpleQueue()
    for item in items:
        left.put(item)
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        error: BaseException | None = None
        try:
            while True:
                work(left.get_nowait())
        except queue.Empty:
            pass
        except BaseException as raised:
            error = raised
            stopping.set()
        ended.put(error)

    for _ in range(workers):
        threading.Thread(target=run, daemon=True).start()
    errors = [ended.get() for _ in range(workers)]
    for error in errors:
        if error is not None and not isinstance(error, Stopped):
            raise error
