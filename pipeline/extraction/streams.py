"""The videos of a task as open streams: the one at hand, and the next ones decoding already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

from distinit.pipeline.video.decode import VideoStream
from distinit.schemas.errors import DecodeError

__all__ = ["Streams"]

type Opened = VideoStream | DecodeError
"""A stream, or why there is none."""


class Streams[Video]:
    """Opens ``videos`` in order, ``ahead`` at a time; leaving the context closes all.

    ``open_stream`` enters what it opens into the stack that it is given.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        open_stream: Callable[[Video, ExitStack], Opened],
        ahead: int,
    ) -> None:
        self._videos = videos
        self._open = open_stream
        self._ahead = ahead
        self._opened: dict[int, tuple[Opened, ExitStack]] = {}

    def take(self, position: int) -> Opened:
        """The stream of one video; the one before it is closed, the next are opened."""
        self._close(position - 1)
        for at in range(position, min(position + self._ahead, len(self._videos))):
            if at not in self._opened:
                with ExitStack() as stack:
                    opened = self._open(self._videos[at], stack)
                    self._opened[at] = opened, stack.pop_all()
        return self._opened[position][0]

    def _close(self, position: int) -> None:
        if position in self._opened:
            self._opened.pop(position)[1].close()

    def __enter__(self) -> Streams[Video]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for position in list(self._opened):
            self._close(position)
