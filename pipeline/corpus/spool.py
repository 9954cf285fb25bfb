"""A bounded folder for videos that come from elsewhere, shared by any number of processes.

Files are named by the sha256 of their bytes. Whoever uses one holds a shared lock on it, so
that only unused files make room; a partial download without a lock belongs to a dead process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from distinit.pipeline.corpus.remote import NetworkError, open_remote, public_url, remote_stat
from distinit.pipeline.storage import PARTIAL_SUFFIX, storage_errors
from distinit.schemas.corpus import SpoolConfig
from distinit.schemas.errors import DecodeError

__all__ = ["Spool", "Spooled", "spooled_name"]

_WAITS_SECONDS = (0.5, 2.0, 8.0)  # before the second, third, fourth try
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


@dataclass(frozen=True, slots=True)
class Spool:
    """At most ``limit_bytes`` in ``folder``, unless the videos in use at once need more."""

    folder: Path
    limit_bytes: int

    @classmethod
    def of(cls, config: SpoolConfig) -> Spool:
        """The spool of a configuration."""
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        folder = Path(home) / "distinit" / "spool" if config.folder is None else config.folder
        return cls(Path(folder).absolute(), int(config.limit_gib * _GIB))

    @contextmanager
    def fetch(self, url: str, digest: str | None = None) -> Iterator[Spooled]:
        """Hold the video behind ``url``: downloaded, unless ``digest`` says that it is here.

        Raises DecodeError when it cannot be had after a few tries, is larger than the limit,
        or has not the ``digest``; StorageError when the disk refuses.
        """
        held = self._hold(spooled_name(url, digest)) if digest is not None else None
        spooled, file = held or self._download(url)
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

    def _download(self, url: str) -> tuple[Spooled, BinaryIO]:
        for wait_seconds in (*_WAITS_SECONDS, None):
            try:
                return self._try_download(url)
            except NetworkError as error:
                if error.final or wait_seconds is None:
                    raise DecodeError(
                        f"{_name(url)}: cannot be fetched: {error}",
                        expected=f"a video at {public_url(url)}",
                        remedy="check the URL, the credentials and the network",
                    ) from None
                time.sleep(wait_seconds)
        raise RuntimeError("the last try neither returns nor raises")

    def _try_download(self, url: str) -> tuple[Spooled, BinaryIO]:
        found = remote_stat(url)
        announced = found.size_bytes
        self._check_size(url, announced or 0)
        with self._reserve(announced or 0) as file:
            partial = Path(file.name)
            try:
                path = self.folder / spooled_name(url, self._receive(url, file, announced))
                with self._folder_lock():
                    held = _held(path)  # others may have fetched and be using it
                    if held is None:
                        partial.rename(path)
                        held = _held(path)
                    self._evict(0)
            finally:
                with self._folder_lock():
                    partial.unlink(missing_ok=True)
        if held is None:
            raise RuntimeError("a file vanished under the lock")
        return replace(held[0], version=found.version), held[1]

    def _receive(self, url: str, file: BinaryIO, announced: int | None) -> str:
        """Write what ``url`` sends to ``file``; returns its sha256."""
        received, sha256 = 0, hashlib.sha256()
        with open_remote(url) as blocks:
            for block in blocks:
                received += len(block)
                self._check_size(url, received)
                sha256.update(block)
                with storage_errors(self.folder):
                    file.write(block)
        if announced is not None and received != announced:
            raise NetworkError(f"{received} of {announced} bytes came")
        with storage_errors(self.folder):
            file.truncate(received)
            file.flush()
            os.fsync(file.fileno())
        return sha256.hexdigest()

    def _check_size(self, url: str, size_bytes: int) -> None:
        if size_bytes > self.limit_bytes:
            raise DecodeError(
                f"{_name(url)}: larger than the spool",
                expected=f"at most {self.limit_bytes} bytes",
                found=f"{size_bytes} bytes or more",
                remedy="raise spool.limit_gib",
            )

    def _reserve(self, size_bytes: int) -> BinaryIO:
        """A new partial file, which counts as ``size_bytes`` from the start; room is made."""
        partial = self.folder / (uuid.uuid4().hex + PARTIAL_SUFFIX)
        with self._folder_lock():
            self._evict(size_bytes)
            file = partial.open("xb")
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

    def _evict(self, needed_bytes: int) -> None:
        """Drop dead downloads, then the unused files that were used longest ago."""
        files = [(path, path.stat()) for path in self.folder.iterdir() if path.name != _LOCK]
        total_bytes = sum(found.st_size for _, found in files)
        for path, found in sorted(files, key=lambda file: file[1].st_mtime_ns):
            dead = path.suffix == PARTIAL_SUFFIX
            if (dead or total_bytes + needed_bytes > self.limit_bytes) and _drop(path):
                total_bytes -= found.st_size


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
