"""The queue between the threads that decode videos and the thread that writes their rows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

__all__ = ["InFlight", "StoppedError"]


class StoppedError(Exception):
    """The extraction is being stopped: reading threads end."""


class InFlight[Item]:
    """Items in the order in which they were put. Batches among them take up limited room.

    A thread that submits a batch waits until there is room for it, so that a teacher that is
    slower than the decoders slows these down. A batch that is larger than the room is let in alone.
    """

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frame_count = 0
        self._byte_count = 0
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._submitting = threading.Lock()  # batches are put in the order of their submission
        self._stopped = False

    def submit(self, frame_count: int, byte_count: int, submit: Callable[[], Item]) -> None:
        """Wait for room, call ``submit``, and put what it returns. Raises StoppedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._has_room(frame_count, byte_count))
            if self._stopped:
                raise StoppedError
            self._frame_count += frame_count
            self._byte_count += byte_count
        with self._submitting:
            self.put(submit())

    def _has_room(self, frame_count: int, byte_count: int) -> bool:
        return self._frame_count == 0 or (
            self._frame_count + frame_count <= self._max_frames
            and self._byte_count + byte_count <= self._max_bytes
        )

    def put(self, item: Item) -> None:
        """Add an item that needs no room. Raises StoppedError."""
        with self._changed:
            if self._stopped:
                raise StoppedError
            self._items.append(item)
            self._changed.notify_all()

    def put_unless_stopped(self, item: Item) -> None:
        """As ``put``; does nothing once stopped."""
        with suppress(StoppedError):
            self.put(item)

    def take(self) -> Item:
        """The oldest item; waits for it. Raises StoppedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._items)
            if self._stopped:
                raise StoppedError
            return self._items.popleft()

    def release(self, frame_count: int, byte_count: int) -> None:
        """Give back the room of a batch whose logits have been computed."""
        with self._changed:
            self._frame_count -= frame_count
            self._byte_count -= byte_count
            self._changed.notify_all()

    def stop(self) -> None:
        """Drop all items; every thread that waits, and every later call, gets StoppedError."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()
