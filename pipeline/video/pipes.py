"""Reading what ffmpeg writes: whole buffers and lines, never blocked for good."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections.abc import Iterator

__all__ = ["Pipe", "PipeState"]

_PIPE_BYTES = 1 << 20
_POLL_MS = 200


class PipeState:
    """What the readers of one process share: is it over, must they stop, did bytes arrive."""

    def __init__(self) -> None:
        self.exited = threading.Event()
        self.stopping = threading.Event()
        self.last_bytes = time.monotonic()


class Pipe:
    """One pipe from a child process. ``url`` is what the child calls its end."""

    def __init__(self, state: PipeState) -> None:
        self._state = state
        self._read_fd, self.child_fd = os.pipe()
        self.url = f"pipe:{self.child_fd}"
        # Fewer switches between writer and reader; refused once a user has very many pipes.
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self._read_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._poll = select.poll()
        self._poll.register(self._read_fd, select.POLLIN)
        self._child_end_open = True

    def close_child_end(self) -> None:
        """To be called once the child has its copy: only then can the end be seen."""
        if self._child_end_open:
            os.close(self.child_fd)
            self._child_end_open = False

    def close(self) -> None:
        """Close both ends. No reader may be running."""
        self.close_child_end()
        if self._read_fd >= 0:
            os.close(self._read_fd)
            self._read_fd = -1

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` (bytes); the number read is smaller only where the output ended."""
        filled = 0
        while filled < len(buffer) and self._wait_for_bytes():
            got = os.readv(self._read_fd, [buffer[filled:]])
            if got == 0:
                break
            self._state.last_bytes = time.monotonic()
            filled += got
        return filled

    def lines(self) -> Iterator[bytes]:
        """The lines of the output, without their ends, as they arrive."""
        rest = b""
        while self._wait_for_bytes():
            data = os.read(self._read_fd, 1 << 16)
            if not data:
                break
            self._state.last_bytes = time.monotonic()
            *whole, rest = (rest + data).split(b"\n")
            yield from whole

    def _wait_for_bytes(self) -> bool:
        """False when the output ended or the readers must stop."""
        while not self._state.stopping.is_set():
            # Asked before the poll: what a process wrote before it exited is then in the pipe.
            # A process forked elsewhere in between may hold our end open, so the end of file
            # alone is not to be relied on.
            exited = self._state.exited.is_set()
            if self._poll.poll(_POLL_MS):
                return True
            if exited:
                return False
        return False
