"""Keeps workers of a dead run from committing to a cache that another run has taken over.

The lock of a killed driver is released at once, but its Ray workers live on for some seconds.
Therefore each run writes a fencing token and hands it to its workers, and a worker locks the
token file while it commits. The next run waits for such a commit to end, then replaces the token,
after which workers with the old token are rejected.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from distinit.pipeline.storage import open_for_writing, storage_errors
from distinit.schemas.errors import LockedError

__all__ = ["behind_fence", "lower_fence", "raise_fence"]

_WAIT_SECONDS = 120.0
_POLL_SECONDS = 0.05


def raise_fence(path: Path) -> str:
    """Write a new token to ``path`` and return it; earlier tokens become invalid.

    Only the holder of the cache's lock may call this. Raises LockedError if a worker of an
    earlier run does not finish its commit within two minutes, and StorageError.
    """
    token = uuid.uuid4().hex
    with storage_errors(path):
        descriptor = open_for_writing(path)
        try:
            _lock_exclusively(descriptor, path)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, token.encode(), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return token


@contextlib.contextmanager
def behind_fence(path: Path, token: str) -> Iterator[None]:
    """A context in which no other run can take over the cache.

    Raises LockedError if one has, or if the cache was removed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise LockedError(
            f"the cache {path.parent} was removed during the run",
            expected="that it stays in its place until the run ends",
            found=f"no {path.name}" if path.parent.is_dir() else "no such folder",
            remedy="run the same command again",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.pread(descriptor, 64, 0) != token.encode():
            raise _taken_over(path)
        yield
    finally:
        os.close(descriptor)


def lower_fence(path: Path) -> None:
    """Remove the token at the end of a run, after any commit in progress."""
    with contextlib.suppress(OSError, LockedError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _lock_exclusively(descriptor, path)
            path.unlink()
        finally:
            os.close(descriptor)


def _lock_exclusively(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LockedError(
                    f"a worker of an earlier run is still writing {path.parent}",
                    expected=f"that it ends within {_WAIT_SECONDS:g} s",
                    remedy="end that worker (`ray status` shows the cluster), then try again",
                ) from None
        time.sleep(_POLL_SECONDS)


def _taken_over(path: Path) -> LockedError:
    return LockedError(
        f"another run has taken over {path.parent}",
        expected="the run that this worker belongs to",
        remedy="nothing: the other run does this work",
    )
