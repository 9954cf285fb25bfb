"""One ffmpeg process with limits on time, memory and silence; always killed and reaped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from distinit.pipeline.video.pipes import Pipe, PipeState, read_all
from distinit.pipeline.video.spawn import spawn
from distinit.schemas.video import DecodeConfig

__all__ = ["FFmpegProcess"]

_CHECK_SECONDS = 0.1
_MAX_LOG_BYTES = 64 << 20
_KEPT_LOG_BYTES = 256 << 10


class FFmpegProcess:
    """A running ffmpeg, watched by a thread that kills it when it exceeds a limit.

    Time counts only while the caller waits for the process (``with process.awaited(): ...``),
    not while the process waits for a busy caller. ``violation`` names the limit that was
    exceeded. Use it as a context manager, or call ``close``: both kill and reap the process.

    Args:
        config: The limits.
        outputs: Names of the outputs; ``pipes`` has one pipe for each.
        command: Builds the argument vector from the URL of each output (``pipe:N``).
        large_pipes: False for very many outputs: the kernel limits the pipes of a user.

    Raises OSError if ffmpeg cannot be executed. A constructor that raises leaves no process,
    thread or file descriptor behind.
    """

    def __init__(
        self,
        config: DecodeConfig,
        outputs: Sequence[str],
        command: Callable[[Mapping[str, str]], Sequence[str]],
        *,
        large_pipes: bool = True,
    ) -> None:
        self.violation: str | None = None
        self.pipes: dict[str, Pipe] = {}
        self._config = config
        self._state = PipeState()
        self._threads: list[threading.Thread] = []
        self._awaited_since: float | None = None
        self._awaited_seconds = 0.0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close())
        try:
            for name in outputs:
                self.pipes[name] = Pipe(self._state, large=large_pipes)
            argv = command({name: pipe.url for name, pipe in self.pipes.items()})
            child_ends = [pipe.child_fd for pipe in self.pipes.values()]
            self._process = spawn(argv, stderr=self._log, pass_fds=child_ends)
        except BaseException:
            self._close_files()
            raise
        try:
            for pipe in self.pipes.values():
                pipe.close_child_end()
            self._state.last_bytes = time.monotonic()
            self.run_thread(self._watch, "ffmpeg-watch")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of the ffmpeg."""
        return self._process.pid

    @property
    def stopping(self) -> bool:
        """True once ``close`` was called: readers must end."""
        return self._state.stopping.is_set()

    def run_thread(
        self, target: Callable[..., object], name: str, *args: object
    ) -> threading.Thread:
        """Start a thread that ends with this process; ``close`` joins it.

        Must not be called at the same time as ``close``.
        """
        thread = threading.Thread(target=target, name=name, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Inside, the caller waits for ffmpeg: the deadline and stall clocks run."""
        self._awaited_since = time.monotonic()
        try:
            yield
        finally:
            self._awaited_seconds += time.monotonic() - self._awaited_since
            self._awaited_since = None

    def kill(self, violation: str | None = None) -> None:
        """Kill ffmpeg and record why; the first reason is kept."""
        if violation is not None and self.violation is None:
            self.violation = violation
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)

    def read_all(self, max_bytes: int) -> dict[str, bytearray] | None:
        """All that ffmpeg writes, by output; None if it is more than ``max_bytes`` in total."""
        return read_all(self.pipes, self._state, max_bytes)

    def wait(self) -> int:
        """Wait until the process ends; its exit status, negative for a signal."""
        return self._process.wait()

    def log_text(self) -> str:
        """The first and the last 256 KiB that ffmpeg wrote to stderr."""
        fd = self._log.fileno()
        size = os.fstat(fd).st_size
        head = os.pread(fd, _KEPT_LOG_BYTES, 0)
        tail_start = max(len(head), size - _KEPT_LOG_BYTES)
        tail = os.pread(fd, _KEPT_LOG_BYTES, tail_start)
        gap = b"\n" if tail_start > len(head) else b""
        return (head + gap + tail).decode("utf-8", errors="replace")

    def stop(self) -> None:
        """End the process and every read; another thread must still ``close`` it."""
        self._state.stopping.set()
        self.kill()

    def close(self) -> None:
        """Kill and reap the process, end the threads, close the pipes. Idempotent."""
        self.stop()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        self._close_files()

    def _close_files(self) -> None:
        for pipe in self.pipes.values():
            pipe.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self) -> None:
        while not self._state.exited.is_set():
            try:
                self._process.wait(_CHECK_SECONDS)
                self._state.exited.set()
            except subprocess.TimeoutExpired:
                if violation := self._exceeded_limit():
                    self.kill(violation)

    def _exceeded_limit(self) -> str | None:
        now, since, config = time.monotonic(), self._awaited_since, self._config
        if since is not None:
            if self._awaited_seconds + now - since > config.deadline_seconds:
                return f"took longer than deadline_seconds={config.deadline_seconds:g}"
            if now - max(since, self._state.last_bytes) > config.stall_seconds:
                return f"stalled: no data for stall_seconds={config.stall_seconds:g}"
        if _resident_mib(self._process.pid) > config.max_memory_mib:
            return f"needs more memory than max_memory_mib={config.max_memory_mib}"
        if os.fstat(self._log.fileno()).st_size > _MAX_LOG_BYTES:
            return f"ffmpeg wrote more than {_MAX_LOG_BYTES >> 20} MiB of messages"
        return None


def _resident_mib(pid: int) -> float:
    """Resident memory of a process, MiB; 0 where /proc cannot be read."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
