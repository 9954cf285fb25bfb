"""The videos of a task as open streams: the one at hand, and the next ones decoding already."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Self

from distinit.pipeline.video.decode import VideoStream
from distinit.schemas.errors import DecodeError

__all__ = ["Streams"]

_LOOK_SECONDS = 0.05

type Opened = VideoStream | DecodeError
"""A stream, or why there is none."""


class Streams[Video]:
    """Opens ``videos`` in order, ``ahead`` at a time; leaving the context closes all.

    ``open_stream`` enters what it opens into the stack that it is given. It runs in a thread of
    its own: a video may have to be downloaded first, while the one at hand is extracted.
    ``stopping`` is set when what it opens is no longer wanted.
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
        # One thread: whoever waits for room in the spool holds only videos before that one.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="open-ahead")

    def take(self, position: int) -> Opened:
        """The stream of one video; the one before it is closed, the next begin to open."""
        if position - 1 in self._opened:
            self._opened.pop(position - 1)[1].close()
        for at in range(position, min(position + self._ahead, len(self._videos))):
            self._begin(at)
        return self._opened[position][0].result()

    def begin(self) -> None:
        """Begin to open the first video: it will be asked for soon."""
        if self._videos:
            self._begin(0)

    def _begin(self, position: int) -> None:
        if position not in self._opened:
            stack = ExitStack()
            future = self._thread.submit(self._open, self._videos[position], stack)
            self._opened[position] = future, stack

    def close(self) -> None:
        """Close what is open, and what is just being opened."""
        self._stopping.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        for future, stack in self._opened.values():
            stack.close()
            while not future.done():
                # The thread may be waiting for the ffmpeg that it put there meanwhile.
                wait([future], _LOOK_SECONDS)
                stack.close()
        self._opened.clear()
        self._thread.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
