"""Receives one file: bounded, resumed after broken connections, and checked by its digest."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from distinit.pipeline.storage import create_partial, fsync_dir, safe_join, storage_errors
from distinit.pipeline.transport.remote import NetworkError, NoRangesError
from distinit.pipeline.transport.stores import Store
from distinit.schemas.errors import TransferError
from distinit.schemas.wording import shown

__all__ = ["Expected", "Stopped", "receive_bytes", "receive_file", "receive_if_there", "retried"]

_WAITS_SECONDS = (0.5, 2.0, 8.0)  # before the second, third, fourth try without any progress
_PROGRESS_BYTES = 4 << 10  # fewer bytes of a connection that breaks are no progress
_RECORD_SECONDS, _RECORD_BYTES_PER_SECOND = 600.0, 100_000  # the longest that a record may take
_ASK_SENDER = "ask the sender of the cache; do not use what has arrived"


class Stopped(BaseException):
    """The transfer was ended from outside; whoever ended it has the reason."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A file that is to arrive. ``size_bytes`` is None if only a limit is known."""

    name: str
    sha256: str
    limit_bytes: int
    size_bytes: int | None = None


@dataclass(slots=True)
class _Arrived:
    """The bytes that have arrived so far."""

    file: BinaryIO
    limit_bytes: int
    size_bytes: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)

    def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.size_bytes, self.sha256 = 0, hashlib.sha256()

    def add(self, block: bytes) -> None:
        self.file.write(block)
        self.sha256.update(block)
        self.size_bytes += len(block)


def receive_bytes(store: Store, name: str, limit_bytes: int) -> bytes:
    """A small file whose digest is not known. Raises TransferError, and as ``retried``."""

    seconds = _RECORD_SECONDS + limit_bytes / _RECORD_BYTES_PER_SECOND

    def read() -> bytes:
        data, ends = bytearray(), time.monotonic() + seconds
        with store.read(name) as (_, blocks):
            for block in blocks:
                data += block
                if len(data) > limit_bytes:
                    raise _too_large(store, name, limit_bytes)
                if time.monotonic() > ends:
                    raise NetworkError(f"not received within {seconds:,.0f} seconds", final=True)
        return bytes(data)

    return retried(store, name, read)


def receive_if_there(store: Store, name: str, limit_bytes: int) -> bytes | None:
    """As ``receive_bytes``; None if there is no such file."""
    try:
        with store.read(name):
            pass
    except NetworkError as error:
        if error.missing:
            return None
    return receive_bytes(store, name, limit_bytes)


def receive_file(
    store: Store,
    expected: Expected,
    root: Path,
    *,
    on_bytes: Callable[[int], None],
    stopping: threading.Event,
) -> int:
    """Receive a file into the folder ``root``; returns its size in bytes.

    It gets its name only once all its bytes have arrived with the expected digest. ``on_bytes`` is
    called with the size of each block, and with a negative number when bytes have to be received
    again. Raises TransferError, StorageError, and Stopped once ``stopping`` is set.
    """
    path = safe_join(root, expected.name)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial, descriptor = create_partial(path)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                arrived = _Arrived(file, expected.limit_bytes)
                _fill(store, expected, arrived, on_bytes, stopping)
                file.flush()
                os.fsync(descriptor)
            partial.replace(path)
            fsync_dir(path.parent)
        finally:
            partial.unlink(missing_ok=True)
            os.close(descriptor)
    return arrived.size_bytes


def _fill(
    store: Store,
    expected: Expected,
    arrived: _Arrived,
    on_bytes: Callable[[int], None],
    stopping: threading.Event,
) -> None:
    """Receive all bytes; once more from the first byte if their digest is wrong."""

    def go_on() -> None:
        _receive_rest(store, expected, arrived, on_bytes, stopping)

    for attempt in (1, 2):
        retried(store, expected.name, go_on, lambda: arrived.size_bytes, stopping)
        found = arrived.sha256.hexdigest()
        if found == expected.sha256:
            return
        on_bytes(-arrived.size_bytes)
        arrived.restart()
        if attempt == 2:
            raise TransferError(
                f"{store.shown}: {shown(expected.name)} has other bytes than its records say",
                expected=f"sha256 {expected.sha256}",
                found=f"sha256 {found}",
                remedy=_ASK_SENDER,
            )


def _receive_rest(
    store: Store,
    expected: Expected,
    arrived: _Arrived,
    on_bytes: Callable[[int], None],
    stopping: threading.Event,
) -> None:
    """Receive what is missing. Raises NetworkError if the file ends too early."""
    with store.read(expected.name, arrived.size_bytes) as (start, blocks):
        if start != arrived.size_bytes:
            on_bytes(-arrived.size_bytes)
            arrived.restart()
        for block in blocks:
            if stopping.is_set():
                raise Stopped
            if arrived.size_bytes + len(block) > expected.limit_bytes:
                raise _too_large(store, expected.name, expected.limit_bytes)
            arrived.add(block)
            on_bytes(len(block))
    if expected.size_bytes not in (None, arrived.size_bytes):
        raise NetworkError(f"{arrived.size_bytes} of {expected.size_bytes} bytes received")


def retried[T](
    store: Store,
    name: str,
    attempt: Callable[[], T],
    progress: Callable[[], int] = lambda: 0,
    stopping: threading.Event | None = None,
) -> T:
    """What ``attempt`` returns; after a NetworkError it is called again, up to three times.

    The count starts again whenever ``progress`` has grown by 4 KiB. Raises TransferError, Stopped,
    and NoRangesError as it is.
    """
    stopping = stopping or threading.Event()
    waits, farthest = list(_WAITS_SECONDS), progress()
    while True:
        try:
            return attempt()
        except NoRangesError:
            raise
        except NetworkError as error:
            if progress() >= farthest + _PROGRESS_BYTES:
                waits, farthest = list(_WAITS_SECONDS), progress()
            if error.final or not waits:
                raise _given_up(store, name, error) from None
            if stopping.wait(waits.pop(0)):
                raise Stopped from None


def _too_large(store: Store, name: str, limit_bytes: int) -> TransferError:
    return TransferError(
        f"{store.shown}: {shown(name)} is larger than it may be",
        expected=f"at most {limit_bytes:,} bytes",
        found="more bytes",
        remedy=_ASK_SENDER,
    )


def _given_up(store: Store, name: str, error: NetworkError) -> TransferError:
    return TransferError(
        f"{store.shown}: {shown(name)} cannot be transferred",
        found=error,
        remedy="check the address, the credentials and the network, then run the same command "
        "again: what has been transferred is kept",
    )
