"""Kills the processes of a local Ray when the process that started it is killed.

Ray's workers detect the death of their raylet by its pid. In a container whose first process does
not reap children (Docker without ``--init``), a dead raylet remains as a zombie, its pid stays in
use, and the workers live on. Therefore a watcher process, started before Ray, holds the read end
of a pipe whose write end belongs to this process. When the write end is closed, for whatever
reason this process ended, the watcher kills every process that inherited our mark.

This file is also the program of the watcher, so it imports only the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from functools import lru_cache
from pathlib import Path

__all__ = ["watch_over_children"]

_MARK = "DISTINIT_RAY_OF"
_PROC = Path("/proc")


def watch_over_children() -> None:
    """Have all later descendants of this process killed within a second of its death.

    Does nothing on systems without /proc, where only Ray's own detection works.
    """
    if _PROC.is_dir():
        _start_watcher(os.getpid())


@lru_cache(maxsize=1)
def _start_watcher(owner_pid: int) -> tuple[subprocess.Popen[bytes], int]:
    """The watcher and the write end of its pipe, open as long as process ``owner_pid`` lives."""
    mark = f"{owner_pid}-{uuid.uuid4().hex}"
    os.environ[_MARK] = mark
    read_end, write_end = os.pipe()  # not inheritable: children cannot keep them open
    try:
        watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, mark],
            stdin=read_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C must not reach the watcher
        )
    finally:
        os.close(read_end)
    return watcher, write_end


def _marked(mark: str) -> list[int]:
    needle = f"{_MARK}={mark}".encode()
    pids = []
    for folder in _PROC.iterdir():
        try:
            if folder.name.isdigit() and needle in (folder / "environ").read_bytes().split(b"\0"):
                pids.append(int(folder.name))
        except OSError:  # the process has ended, or belongs to another user
            continue
    return [pid for pid in pids if pid != os.getpid()]


def _watch(mark: str) -> None:
    """Wait for the end of stdin, then kill until no process is left: they may start others."""
    sys.stdin.read()
    while pids := _marked(mark):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


if __name__ == "__main__":
    _watch(sys.argv[1])
