"""One ffmpeg process within limits: time, memory, silence; killed and reaped in every exit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from distinit.pipeline.video.pipes import Pipe, PipeState
from distinit.pipeline.video.spawn import spawn
from distinit.schemas.video import DecodeConfig

__all__ = ["FFmpegProcess"]

_CHECK_SECONDS = 0.1
_MAX_LOG_BYTES = 64 << 20
_KEPT_LOG_BYTES = 256 << 10


class FFmpegProcess:
    """A running ffmpeg, watched by a thread that kills it when it breaks a limit.

    Time counts while the caller waits for the process (``with process.awaited(): ...``), not
    while the process waits for a busy caller. ``violation`` says which limit was broken.
    Use as a context manager: leaving it kills and reaps the process, whatever happened.
    """

    def __init__(self, config: DecodeConfig) -> None:
        self.violation: str | None = None
        self._config = config
        self._state = PipeState()
        self._pipes: list[Pipe] = []
        self._threads: list[threading.Thread] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close())
        self._awaited_since: float | None = None
        self._awaited_seconds = 0.0

    @property
    def pid(self) -> int:
        """Process id of the ffmpeg."""
        return self._running().pid

    @property
    def stopping(self) -> bool:
        """True once the process is being closed: readers end."""
        return self._state.stopping.is_set()

    def new_pipe(self) -> Pipe:
        """A pipe for one output; make all of them before ``start``."""
        pipe = Pipe(self._state)
        self._pipes.append(pipe)
        return pipe

    def start(self, argv: Sequence[str]) -> None:
        """Start ffmpeg. Raises OSError when it cannot be executed."""
        self._state.last_bytes = time.monotonic()
        try:
            child_ends = [pipe.child_fd for pipe in self._pipes]
            self._process = spawn(argv, stderr=self._log, pass_fds=child_ends)
        finally:
            for pipe in self._pipes:
                pipe.close_child_end()
        self.run_thread(self._watch, "ffmpeg-watch")

    def run_thread(self, target: object, name: str, *args: object) -> threading.Thread:
        """Start a thread that ends with this process; ``close`` joins it."""
        thread = threading.Thread(target=target, name=name, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()
        return thread

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """While inside, the caller waits for ffmpeg: deadline and stall clock run."""
        self._awaited_since = time.monotonic()
        try:
            yield
        finally:
            self._awaited_seconds += time.monotonic() - self._awaited_since
            self._awaited_since = None

    def kill(self, violation: str | None = None) -> None:
        """Kill ffmpeg, noting why. The first reason stays."""
        if violation is not None and self.violation is None:
            self.violation = violation
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the end of the process; its exit status, negative for a signal."""
        return self._running().wait()

    def log_text(self) -> str:
        """What ffmpeg said on stderr: the first and the last 256 KiB."""
        fd = self._log.fileno()
        size = os.fstat(fd).st_size
        head = os.pread(fd, _KEPT_LOG_BYTES, 0)
        tail_start = max(len(head), size - _KEPT_LOG_BYTES)
        tail = os.pread(fd, _KEPT_LOG_BYTES, tail_start)
        gap = b"\n" if tail_start > len(head) else b""
        return (head + gap + tail).decode("utf-8", errors="replace")

    def close(self) -> None:
        """Kill, reap, end the threads, close the pipes. May be called again."""
        self._state.stopping.set()
        self.kill()
        if self._process is not None:
            self._process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in self._pipes:
            pipe.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the process was not started")
        return self._process

    def _watch(self) -> None:
        process = self._running()
        while not self._state.exited.is_set():
            try:
                process.wait(_CHECK_SECONDS)
                self._state.exited.set()
            except subprocess.TimeoutExpired:
                if violation := self._broken_limit(process.pid):
                    self.kill(violation)

    def _broken_limit(self, pid: int) -> str | None:
        now, since, config = time.monotonic(), self._awaited_since, self._config
        if since is not None:
            if self._awaited_seconds + now - since > config.deadline_seconds:
                return f"took longer than deadline_seconds={config.deadline_seconds:g}"
            if now - max(since, self._state.last_bytes) > config.stall_seconds:
                return f"stalled: no data for stall_seconds={config.stall_seconds:g}"
        if _resident_mib(pid) > config.max_memory_mib:
            return f"needs more memory than max_memory_mib={config.max_memory_mib}"
        if os.fstat(self._log.fileno()).st_size > _MAX_LOG_BYTES:
            return f"ffmpeg wrote more than {_MAX_LOG_BYTES >> 20} MiB of messages"
        return None


def _resident_mib(pid: int) -> float:
    """Resident memory of a process, MiB; 0 where /proc does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
