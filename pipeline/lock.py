"""A lock that allows one writer per folder. The kernel releases it when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from distinit.pipeline.records import parse_json
from distinit.pipeline.storage import open_for_writing, open_regular, storage_errors
from distinit.schemas.errors import LockedError

__all__ = ["WriterLock"]

_POLL_SECONDS = 0.5
_PROBE_SECONDS = 0.2  # another process that calls ``holder`` has the lock for a moment
_MAX_HOLDER_BYTES = 4096


class WriterLock:
    """``flock`` on a file that also records its holder: pid, host, user, since.

    On one machine the lock is released when its holder exits, however that happens. Between
    machines that share a folder, ``flock`` may not work on every file system: therefore a file
    that names a holder on *another* host also counts as locked, and has to be deleted by hand if
    that host died.
    """

    error: type[LockedError] = LockedError

    def __init__(self, path: Path) -> None:
        """``path``: the lock file, which lies directly in the folder that it protects."""
        self.path = path
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock. Raises LockedError, with the holder, if another process has it."""
        deadline = time.monotonic() + _PROBE_SECONDS
        while not self._take():
            if time.monotonic() > deadline:
                raise self._locked_error(self.holder() or _describe({}), "wait for it, or stop it")
            time.sleep(_PROBE_SECONDS / 10)

    @contextmanager
    def waiting(self, message: Callable[[str], None]) -> Iterator[Self]:
        """Hold the lock, after waiting until no other process has it.

        Before it waits, it calls ``message`` once, with the holder. Raises LockedError at once
        for a holder on another host, since the end of that process would not be noticed.
        """
        self._wait(message)
        try:
            yield self
        finally:
            self.release()

    def _wait(self, message: Callable[[str], None]) -> None:
        reported = False
        while not self._take():
            who = self.holder()
            if who is not None and not reported:
                message(f"waiting: another process is writing {self.path.parent} ({who})")
                reported = True
            time.sleep(_POLL_SECONDS)

    def _take(self) -> bool:
        """Try to take the lock; False if another process has it. Raises as ``waiting``."""
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_for_writing(self.path)
        try:
            if not _is_free(descriptor, fcntl.LOCK_EX):
                os.close(descriptor)
                return False
            holder = _holder(descriptor)
            if holder.get("host", socket.gethostname()) != socket.gethostname():
                remedy = f"if that process is dead, delete {self.path} and try again"
                raise self._locked_error(_describe(holder), remedy)
            _write_holder(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Release the lock. Idempotent."""
        if self._descriptor < 0:
            return
        # An empty file shows that the last holder released the lock itself.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1

    def holder(self) -> str | None:
        """Who holds the lock now, as text; None if nobody does. Writes nothing."""
        try:
            descriptor = open_regular(self.path)
        except OSError:
            return None
        try:
            return None if _is_free(descriptor, fcntl.LOCK_SH) else _describe(_holder(descriptor))
        finally:
            os.close(descriptor)

    def _locked_error(self, holder: str, remedy: str) -> LockedError:
        return self.error(
            f"another process is writing {self.path.parent}",
            expected="one writer at a time",
            found=holder,
            remedy=remedy,
        )

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _is_free(descriptor: int, kind: int) -> bool:
    """Whether no other process holds the lock; if so, it is now held as ``kind``."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _describe(holder: dict[str, Any]) -> str:
    who = ", ".join(f"{key} {value}" for key, value in holder.items())
    return who or "a process that did not record its name"


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        holder = parse_json(os.pread(descriptor, _MAX_HOLDER_BYTES, 0))
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _write_holder(descriptor: int) -> None:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in containers
        user = str(os.getuid())
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "user": user,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, (json.dumps(holder) + "\n").encode(), 0)
