"""A bounded folder for videos that come from elsewhere, shared by any number of processes.

Files are named by the sha256 of their bytes. Whoever uses one holds a shared lock on it, so
that only unused files make room; a partial download without a lock belongs to a dead process.
A download reserves its room before it begins, and waits while others use too much of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from distinit.pipeline.corpus.remote import (
    NetworkError,
    RemoteStat,
    open_remote,
    public_url,
    remote_stat,
)
from distinit.pipeline.storage import PARTIAL_SUFFIX, storage_errors
from distinit.schemas.corpus import SpoolConfig
from distinit.schemas.errors import DecodeError, UnreachableError

__all__ = ["Spool", "Spooled", "spooled_name"]

_WAITS_SECONDS = (0.5, 2.0, 8.0)  # before the second, third, fourth try
_ROOM_SECONDS = 0.1  # between looks for room
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}")
_LOCK = ".lock"
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Spooled:
    """A video that lies here while it is held; ``version`` as in RemoteStat, 0 if not asked."""

    path: Path
    digest: str
    size_bytes: int
    version: int = 0


@dataclass(slots=True)
class _Partial:
    """A download under way: what has come, and of which object."""

    file: BinaryIO
    found: RemoteStat
    received: int = 0
    farthest: int = 0  # has ever been received: going on from there is progress
    sha256: Any = field(default_factory=hashlib.sha256)

    def restart(self) -> None:
        """Forget what has come."""
        self.file.seek(0)
        self.received, self.sha256 = 0, hashlib.sha256()

    def add(self, block: bytes) -> None:
        """Write the next bytes."""
        self.file.write(block)
        self.sha256.update(block)
        self.received += len(block)

    def advanced(self) -> bool:
        """Whether more has come than ever before this was last asked."""
        before, self.farthest = self.farthest, max(self.farthest, self.received)
        return self.farthest > before


@dataclass(frozen=True, slots=True)
class Spool:
    """Never more than ``limit_bytes`` in ``folder``."""

    folder: Path
    limit_bytes: int

    @classmethod
    def of(cls, config: SpoolConfig) -> Spool:
        """The spool of a configuration."""
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        folder = Path(home) / "distinit" / "spool" if config.folder is None else config.folder
        return cls(Path(folder).absolute(), int(config.limit_gib * _GIB))

    @contextmanager
    def fetch(
        self, url: str, digest: str | None = None, stopping: threading.Event | None = None
    ) -> Iterator[Spooled]:
        """Hold the video behind ``url``: downloaded, unless ``digest`` says that it is here.

        Waits while videos that others hold leave no room: who holds one may fetch a second only
        in another thread. ``stopping`` ends waits and downloads early.

        Raises DecodeError when it cannot be had after a few tries, is larger than the limit,
        or has not the ``digest``; UnreachableError when its server does not answer; StorageError
        when the disk refuses.
        """
        stopping = stopping or threading.Event()
        held = self._hold(spooled_name(url, digest)) if digest is not None else None
        spooled, file = held or self._download(url, stopping)
        with file:
            if digest not in (None, spooled.digest):
                raise DecodeError(
                    f"{_name(url)}: changed since it was listed",
                    expected=f"sha256 {digest}",
                    found=f"sha256 {spooled.digest}",
                    remedy="list the videos again, or restore this one",
                )
            yield spooled

    def _hold(self, name: str) -> tuple[Spooled, BinaryIO] | None:
        with self._folder_lock():
            return _held(self.folder / name)

    def _download(self, url: str, stopping: threading.Event) -> tuple[Spooled, BinaryIO]:
        """Fetch ``url`` in as many tries as bring it further, and three more."""
        waits = list(_WAITS_SECONDS)
        with ExitStack() as stack:
            partial: _Partial | None = None
            while True:
                try:
                    partial = self._partial(url, partial, stack, stopping)
                    self._receive(url, partial, stopping)
                    return self._keep(url, partial)
                except NetworkError as error:
                    if partial is not None and partial.advanced():
                        waits = list(_WAITS_SECONDS)
                    if error.final or not waits:
                        raise _given_up(url, error) from None
                    stopping.wait(waits.pop(0))

    def _partial(
        self, url: str, partial: _Partial | None, stack: ExitStack, stopping: threading.Event
    ) -> _Partial:
        """The download to go on with: a new one, if the object is no longer that of the old."""
        found = remote_stat(url)
        if partial is not None and partial.found == found:
            return partial
        stack.close()
        # Nobody knows how large it is: it may have all of the spool.
        needed = self.limit_bytes if found.size_bytes is None else found.size_bytes
        self._check_size(url, needed)
        return _Partial(stack.enter_context(self._reserved(needed, stopping)), found)

    def _receive(self, url: str, partial: _Partial, stopping: threading.Event) -> None:
        """Go on with ``partial`` to the end. Raises NetworkError when less comes."""
        resumed = partial.received if partial.found.version else 0
        with open_remote(url, resumed) as (start, blocks):
            if start == 0:
                partial.restart()
            for block in blocks:
                _raise_if(stopping)
                self._check_size(url, partial.received + len(block))
                with storage_errors(self.folder):
                    partial.add(block)
        announced = partial.found.size_bytes
        if announced is not None and partial.received != announced:
            raise NetworkError(f"{partial.received} of {announced} bytes came")
        if start > 0 and remote_stat(url) != partial.found:
            raise NetworkError("it changed while it was fetched")

    def _keep(self, url: str, partial: _Partial) -> tuple[Spooled, BinaryIO]:
        """Give the whole download its name."""
        with storage_errors(self.folder):
            partial.file.truncate(partial.received)
            partial.file.flush()
            os.fsync(partial.file.fileno())
        path = self.folder / spooled_name(url, partial.sha256.hexdigest())
        with self._folder_lock():
            held = _held(path)  # others may have fetched and be using it
            if held is None:
                Path(partial.file.name).rename(path)
                held = _held(path)
        if held is None:
            raise RuntimeError("a file vanished under the lock")
        return replace(held[0], version=partial.found.version), held[1]

    def _check_size(self, url: str, size_bytes: int) -> None:
        if size_bytes > self.limit_bytes:
            raise DecodeError(
                f"{_name(url)}: larger than the spool",
                expected=f"at most {self.limit_bytes} bytes",
                found=f"{size_bytes} bytes or more",
                remedy="raise spool.limit_gib",
            )

    @contextmanager
    def _reserved(self, size_bytes: int, stopping: threading.Event) -> Iterator[BinaryIO]:
        """A new partial file, which counts as ``size_bytes`` from the start; room is made."""
        while (file := self._try_reserve(size_bytes)) is None:
            stopping.wait(_ROOM_SECONDS)
            _raise_if(stopping)
        try:
            with file:
                yield file
        finally:
            with self._folder_lock():
                Path(file.name).unlink(missing_ok=True)

    def _try_reserve(self, size_bytes: int) -> BinaryIO | None:
        with self._folder_lock():
            if self._evict(size_bytes) + size_bytes > self.limit_bytes:
                return None
            file = (self.folder / (uuid.uuid4().hex + PARTIAL_SUFFIX)).open("xb")
            fcntl.flock(file, fcntl.LOCK_SH)
            file.truncate(size_bytes)
        return file

    @contextmanager
    def _folder_lock(self) -> Iterator[None]:
        """Files appear and vanish under this lock alone."""
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self.folder / _LOCK).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield

    def _evict(self, needed_bytes: int) -> int:
        """Drop dead downloads, then the unused files that were used longest ago; bytes left."""
        files = [(path, path.stat()) for path in self.folder.iterdir() if path.name != _LOCK]
        total_bytes = sum(found.st_size for _, found in files)
        for path, found in sorted(files, key=lambda file: file[1].st_mtime_ns):
            dead = path.suffix == PARTIAL_SUFFIX
            if (dead or total_bytes + needed_bytes > self.limit_bytes) and _drop(path):
                total_bytes -= found.st_size
        return total_bytes


def _given_up(url: str, error: NetworkError) -> DecodeError | UnreachableError:
    if error.unreachable:
        return UnreachableError(
            f"videos cannot be fetched: {error}",
            expected=f"an answer for {public_url(url)}",
            remedy="check the address and the network; rerun the same command to resume",
        )
    return DecodeError(
        f"{_name(url)}: cannot be fetched: {error}",
        expected=f"a video at {public_url(url)}",
        remedy="check the URL, the credentials and the network",
    )


def _raise_if(stopping: threading.Event) -> None:
    """Whoever set it no longer looks at what this raises."""
    if stopping.is_set():
        raise NetworkError("no longer wanted", final=True)


def _held(path: Path) -> tuple[Spooled, BinaryIO] | None:
    """``path``, locked against eviction and used just now; None if it is not here."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    now_ns = time.time_ns()  # the kernel's own stamp is too coarse to order files by
    os.utime(path, ns=(now_ns, now_ns))
    return Spooled(path, path.stem, path.stat().st_size), file


def _drop(path: Path) -> bool:
    """Remove ``path`` unless somebody holds it."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink()
        return True


def spooled_name(url: str, digest: str) -> str:
    """What the video behind ``url`` is called in the spool: ffmpeg looks at extensions too."""
    suffix = PurePosixPath(public_url(url)).suffix
    return digest + (suffix.lower() if _SUFFIX.fullmatch(suffix) else "")


def _name(url: str) -> str:
    return PurePosixPath(public_url(url)).name
