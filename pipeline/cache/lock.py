"""One writer a cache. The kernel holds the lock, so a dead writer never blocks the next."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from distinit.pipeline.storage import open_for_writing, storage_errors
from distinit.schemas.errors import CacheLockedError

__all__ = ["CacheLock"]


class CacheLock:
    """``flock`` on a file that also says who holds it: pid, host, user, since.

    On one machine the lock ends with its holder, however that dies. Between machines that share
    a folder, ``flock`` is only as good as the file system: therefore a file that still names a
    holder on *another* host is refused as well, and has to be deleted by hand if that host died.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def acquire(self) -> None:
        """Raises CacheLockedError, naming the holder, if another process writes."""
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_for_writing(self.path)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise self._refusal(_holder(descriptor), "wait for it, or stop it") from error
                raise
            holder = _holder(descriptor)
            if holder.get("host", socket.gethostname()) != socket.gethostname():
                raise self._refusal(
                    holder, f"if that process is dead, delete {self.path} and try again"
                )
            _write_holder(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        if self._descriptor < 0:
            return
        # An empty file says that the last holder left in good order.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1

    def _refusal(self, holder: dict[str, object], remedy: str) -> CacheLockedError:
        who = ", ".join(f"{key} {value}" for key, value in holder.items())
        return CacheLockedError(
            f"another process is writing {self.path.parent}",
            expected="one writer at a time",
            found=who or "a holder that left no name",
            remedy=remedy,
        )

    def __enter__(self) -> CacheLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _holder(descriptor: int) -> dict[str, object]:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
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
