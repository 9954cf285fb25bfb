"""Ending the processes of a local Ray when the process that started it is killed.

Ray's workers watch for their raylet's death by its pid. In a container whose first process does
not reap (Docker without ``--init``), the dead raylet stays as a zombie, its pid stays taken, and
the workers live on. So a watcher, started before Ray, holds the reading end of a pipe whose
writing end is ours: when that closes, however this process ended, it kills whatever inherited
our mark.

This file is also the watcher's program; as such it imports nothing but the standard library.
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
    """Processes that this one starts from now on are killed within a second of its death.

    Does nothing where there is no /proc: Ray's own watching has to do there.
    """
    if _PROC.is_dir():
        _start_watcher(os.getpid())


@lru_cache(maxsize=1)
def _start_watcher(owner_pid: int) -> tuple[subprocess.Popen[bytes], int]:
    """The watcher and the writing end of its pipe, open as long as process ``owner_pid`` lives."""
    mark = f"{owner_pid}-{uuid.uuid4().hex}"
    os.environ[_MARK] = mark
    reading, writing = os.pipe()  # not inheritable: children cannot keep it open
    try:
        watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, mark],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us
        )
    finally:
        os.close(reading)
    return watcher, writing


def _marked(mark: str) -> list[int]:
    needle = f"{_MARK}={mark}".encode()
    pids = []
    for folder in _PROC.iterdir():
        try:
            if folder.name.isdigit() and needle in (folder / "environ").read_bytes().split(b"\0"):
                pids.append(int(folder.name))
        except OSError:  # ended meanwhile, or another user's
            continue
    return [pid for pid in pids if pid != os.getpid()]


def _watch(mark: str) -> None:
    """Until stdin ends; then kill until none is left, for they may be starting others."""
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
