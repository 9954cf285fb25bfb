"""A folder of limited size for downloaded videos, shared by any number of processes.

Files are named by the sha256 of their bytes. A process that uses a file holds a shared lock on it,
so that only unused files are evicted; a partial download without a lock belongs to a dead process.
A download reserves its space before it starts, and waits while other files take too much space.
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

from distinit.pipeline.storage import PARTIAL_SUFFIX, storage_errors
from distinit.pipeline.transport.remote import (
    NetworkError,
    RemoteStat,
    open_remote,
    public_url,
    remote_stat,
)
from distinit.schemas.corpus import SpoolConfig
from distinit.schemas.errors import DecodeError, UnreachableError

__all__ = ["Spool", "Spooled", "spooled_name"]

_WAITS_SECONDS = (0.5, 2.0, 8.0)  # before the second, third, fourth try
_SPACE_SECONDS = 0.1  # between checks for free space
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}")
_LOCK = ".lock"
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Spooled:
    """A video in the spool, which stays there while it is held.

    ``version`` is that of RemoteStat, or 0 if it was not requested.
    """

    path: Path
    digest: str
    size_bytes: int
    version: int = 0


@dataclass(slots=True)
class _Download:
    """A download in progress, and the remote object that it belongs to."""

    file: BinaryIO
    found: RemoteStat
    received: int = 0
    farthest: int = 0  # largest ``received`` so far
    sha256: Any = field(default_factory=hashlib.sha256)

    def restart(self) -> None:
        """Start again from the first byte."""
        self.file.seek(0)
        self.received, self.sha256 = 0, hashlib.sha256()

    def add(self, block: bytes) -> None:
        """Write the next bytes."""
        self.file.write(block)
        self.sha256.update(block)
        self.received += len(block)

    def advanced(self) -> bool:
        """Whether more bytes were received than at any earlier call."""
        before, self.farthest = self.farthest, max(self.farthest, self.received)
        return self.farthest > before


@dataclass(frozen=True, slots=True)
class Spool:
    """Downloads videos to ``folder``, which never holds more than ``limit_bytes``."""

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
        """Hold the video at ``url``, which is downloaded unless the spool has its ``digest``.

        Waits while videos that others hold leave too little space. A thread that holds a video
        must not fetch a second one. Setting ``stopping`` ends waits and downloads early.

        Raises DecodeError if the video cannot be fetched after a few attempts, is larger than the
        limit or has another ``digest``; UnreachableError if the server does not respond;
        StorageError if the disk cannot be written.
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
        """Download ``url``; give up after three retries without a single new byte."""
        waits = list(_WAITS_SECONDS)
        with ExitStack() as stack:
            partial: _Download | None = None
            while True:
                try:
                    partial = self._resumable(url, partial, stack, stopping)
                    self._receive(url, partial, stopping)
                    return self._keep(url, partial)
                except NetworkError as error:
                    if partial is not None and partial.advanced():
                        waits = list(_WAITS_SECONDS)
                    if error.final or not waits:
                        raise _given_up(url, error) from None
                    stopping.wait(waits.pop(0))

    def _resumable(
        self, url: str, partial: _Download | None, stack: ExitStack, stopping: threading.Event
    ) -> _Download:
        """The download to resume, or a new one if the remote object has changed."""
        found = remote_stat(url)
        if partial is not None and partial.found == found:
            return partial
        stack.close()
        # If its size is unknown, it may take the whole spool.
        needed = self.limit_bytes if found.size_bytes is None else found.size_bytes
        self._check_size(url, needed)
        return _Download(stack.enter_context(self._reserved(needed, stopping)), found)

    def _receive(self, url: str, partial: _Download, stopping: threading.Event) -> None:
        """Receive the rest of ``partial``. Raises NetworkError if bytes are missing."""
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
            raise NetworkError(f"{partial.received} of {announced} bytes received")
        if start > 0 and remote_stat(url) != partial.found:
            raise NetworkError("it changed during the download")

    def _keep(self, url: str, partial: _Download) -> tuple[Spooled, BinaryIO]:
        """Rename a complete download."""
        with storage_errors(self.folder):
            partial.file.truncate(partial.received)
            partial.file.flush()
            os.fsync(partial.file.fileno())
        path = self.folder / spooled_name(url, partial.sha256.hexdigest())
        with self._folder_lock():
            held = _held(path)  # another process may have downloaded it too
            if held is None:
                Path(partial.file.name).rename(path)
                held = _held(path)
        if held is None:
            raise RuntimeError("a file disappeared while the lock was held")
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
        """A new partial file of ``size_bytes``, once unused files were evicted to make space."""
        while (file := self._try_reserve(size_bytes)) is None:
            stopping.wait(_SPACE_SECONDS)
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
        """Held whenever files are added or removed."""
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self.folder / _LOCK).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield

    def _evict(self, needed_bytes: int) -> int:
        """Remove dead downloads, then the least recently used files; returns the bytes left."""
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
            expected=f"a response for {public_url(url)}",
            remedy="check the address and the network; rerun the same command to resume",
        )
    return DecodeError(
        f"{_name(url)}: cannot be fetched: {error}",
        expected=f"a video at {public_url(url)}",
        remedy="check the URL, the credentials and the network",
    )


def _raise_if(stopping: threading.Event) -> None:
    """Raise NetworkError if ``stopping`` is set; the caller discards it then."""
    if stopping.is_set():
        raise NetworkError("no longer needed", final=True)


def _held(path: Path) -> tuple[Spooled, BinaryIO] | None:
    """``path``, locked against eviction and marked as just used; None if it does not exist."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    now_ns = time.time_ns()  # the kernel's timestamps are too coarse to order files
    os.utime(path, ns=(now_ns, now_ns))
    return Spooled(path, path.stem, path.stat().st_size), file


def _drop(path: Path) -> bool:
    """Remove ``path`` unless a process holds it; whether it was removed."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink()
        return True


def spooled_name(url: str, digest: str) -> str:
    """Name of the video at ``url`` in the spool, with its extension, which ffmpeg uses."""
    suffix = PurePosixPath(public_url(url)).suffix
    return digest + (suffix.lower() if _SUFFIX.fullmatch(suffix) else "")


def _name(url: str) -> str:
    return PurePosixPath(public_url(url)).name
