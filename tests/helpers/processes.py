"""Checks whether processes have ended, and finds those that were started by another."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path


def ends_within(pid: int, seconds: float) -> bool:
    """Whether process ``pid`` ends within ``seconds``; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while not _has_ended(pid):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def marked_by(name: str, value: str) -> dict[int, str]:
    """Pid -> command line of living processes with this environment variable, as inherited."""
    needle = f"{name}={value}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and needle in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode()
        except OSError:
            continue
    return found


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return True


def children() -> set[int]:
    """Pids of this process's living children."""
    pids: set[int] = set()
    for one in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError):  # a thread that has just ended
            pids |= {int(pid) for pid in one.read_text().split()}
    return pids
