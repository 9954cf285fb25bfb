"""Opens the videos of a task as streams; the next ones already decode in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Self

from distinit.pipeline.video.decode import VideoStream
from distinit.schemas.errors import DecodeError

__all__ = ["Streams"]

_POLL_SECONDS = 0.05

type Opened = VideoStream | DecodeError
"""A stream, or the error that opening it raised."""


class Streams[Video]:
    """Opens ``videos`` in order, ``ahead`` at a time; leaving the context closes all.

    ``open_stream`` enters what it opens into the given stack. It runs in a separate thread, so
    that a video can be downloaded while the current one is extracted. ``stopping`` is set when
    its result is no longer needed.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        open_stream: Callable[[Video, ExitStack], Opened],
        ahead: int,
        stopping: threading.Event | None = None,
    ) -> None:
        self._videos = videos
        self._open = open_stream
        self._ahead = ahead
        self._stopping = stopping or threading.Event()
        self._opened: dict[int, tuple[Future[Opened], ExitStack]] = {}
        # One thread, so that a video waiting for room in the spool never waits for a later one.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="open-ahead")

    def take(self, position: int) -> Opened:
        """The stream of one video. Closes the previous one and starts to open the next ones."""
        if position - 1 in self._opened:
            self._opened.pop(position - 1)[1].close()
        for at in range(position, min(position + self._ahead, len(self._videos))):
            self._begin(at)
        return self._opened[position][0].result()

    def begin(self) -> None:
        """Start to open the first video ahead of ``take``."""
        if self._videos:
            self._begin(0)

    def _begin(self, position: int) -> None:
        if position not in self._opened:
            stack = ExitStack()
            future = self._thread.submit(self._open, self._videos[position], stack)
            self._opened[position] = future, stack

    def close(self) -> None:
        """Close all streams, including those that are still being opened."""
        self._stopping.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        for future, stack in self._opened.values():
            stack.close()
            while not future.done():
                # The thread may have put an ffmpeg on the stack since, and be waiting for it.
                wait([future], _POLL_SECONDS)
                stack.close()
        self._opened.clear()
        self._thread.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
