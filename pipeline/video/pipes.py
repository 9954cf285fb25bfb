"""Reads ffmpeg's output from pipes, as whole buffers or lines; reads never block forever."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections.abc import Iterator, Mapping

__all__ = ["Pipe", "PipeState", "read_all"]

_PIPE_BYTES = 1 << 20
_POLL_MS = 200
_READ_BYTES = 1 << 16
_FIRST_BYTES = 1 << 12  # of a list, which are read as they arrive: someone waits for its header
_LINES_SECONDS = 0.02


class PipeState:
    """State that the readers of one process share.

    ``exited``: the process has ended. ``stopping``: the readers must end. ``last_bytes``: when data
    last arrived, seconds of ``time.monotonic``.
    """

    def __init__(self) -> None:
        self.exited = threading.Event()
        self.stopping = threading.Event()
        self.last_bytes = time.monotonic()


class Pipe:
    """One pipe from a child process. ``url`` is the child's name for its end."""

    def __init__(self, state: PipeState, *, large: bool = True) -> None:
        self._state = state
        self._read_fd, self.child_fd = os.pipe()
        self.url = f"pipe:{self.child_fd}"
        # A larger pipe means fewer context switches. The kernel refuses it to a user who has very
        # many pipes already.
        if large:
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(self._read_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._poll = select.poll()
        self._poll.register(self._read_fd, select.POLLIN)
        self._child_end_open = True

    def close_child_end(self) -> None:
        """Call this once the child has its copy of the descriptor.

        Until then no reader can see the end of the output.
        """
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
        """Fill ``buffer`` and return the number of bytes read; fewer only at the end."""
        filled = 0
        while filled < len(buffer) and self._wait_for_bytes():
            got = os.readv(self._read_fd, [buffer[filled:]])
            if got == 0:
                break
            self._state.last_bytes = time.monotonic()
            filled += got
        return filled

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of the output, without line breaks, at most 20 ms after they arrive.

        A line arrives with each frame. To wake up for each costs more than to read it.
        """
        rest, read_bytes = b"", 0
        while self._wait_for_bytes():
            data = os.read(self._read_fd, _READ_BYTES)
            if not data:
                break
            self._state.last_bytes = time.monotonic()
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
            read_bytes += len(data)
            if read_bytes > _FIRST_BYTES:
                self._state.exited.wait(_LINES_SECONDS)

    @property
    def read_fd(self) -> int:
        """The descriptor of our end."""
        return self._read_fd

    def _wait_for_bytes(self) -> bool:
        """Return False when the output has ended or the readers must stop."""
        while not self._state.stopping.is_set():
            # Checked before polling: if the process has exited, all it wrote is in the pipe.
            # End of file alone is not reliable: a process that was forked elsewhere in the
            # meantime may hold a copy of the write end.
            exited = self._state.exited.is_set()
            if self._poll.poll(_POLL_MS):
                return True
            if exited:
                return False
        return False


def read_all(
    pipes: Mapping[str, Pipe], state: PipeState, max_bytes: int
) -> dict[str, bytearray] | None:
    """Read ``pipes``, all at the same time, to their ends; None for over ``max_bytes`` in total."""
    outputs = {name: bytearray() for name in pipes}
    by_fd = {pipe.read_fd: outputs[name] for name, pipe in pipes.items()}
    poll = select.poll()
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    left, open_count = max_bytes, len(by_fd)
    while open_count and not state.stopping.is_set():
        exited = state.exited.is_set()  # before polling, as above
        ready = poll.poll(_POLL_MS)
        if exited and not ready:
            break
        for fd, _ in ready:
            data = os.read(fd, _READ_BYTES)
            if not data:
                poll.unregister(fd)
                open_count -= 1
            by_fd[fd] += data
            left -= len(data)
            if left < 0:
                return None
        state.last_bytes = time.monotonic()
    return outputs
