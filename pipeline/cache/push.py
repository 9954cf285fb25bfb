"""Sends a complete cache to a folder or an object store: resumable, and whole or absent there.

``manifest-sha256.txt`` is sent first: it tells other pushes whose files arrive. ``manifest.json``
is sent last: a place without it has no cache. Every file is hashed before it is sent, so that no
damaged byte is published.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.cache.copies import refuse_copy
from distinit.pipeline.cache.foreign import refuse_foreign_target
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.published import (
    CHECKSUMS,
    MANIFEST,
    MAX_LIST_BYTES,
    SIGNATURE,
    PublishedFile,
    parse_list,
)
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.remote_records import RemoteRecords, receive_records
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.progress import Progress
from distinit.pipeline.records import MAX_RECORD_BYTES
from distinit.pipeline.storage import read_bounded, refuse_links, sha256_file
from distinit.pipeline.transport.hub import HubStore, refuse_too_many_files
from distinit.pipeline.transport.parallel import Counter, move_all
from distinit.pipeline.transport.receive import receive_if_there, retried
from distinit.pipeline.transport.stores import (
    FolderStore,
    ObjectStore,
    Store,
    WebStore,
    open_store,
)
from distinit.schemas.errors import (
    CacheCorruptError,
    CacheError,
    ConfigError,
    DistInitError,
    TransferError,
)
from distinit.schemas.wording import first_lines

__all__ = ["Pushed", "push_cache"]

_PROBLEMS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Pushed:
    """What ``push_cache`` did. ``kept``: files that the target had already."""

    target: str
    content_digest: str
    files: int
    kept: int
    sent_bytes: int


def push_cache(
    root: Path, address: str, *, replace: bool, workers: int, progress: Progress
) -> Pushed:
    """Send the complete cache in the folder ``root`` to ``address``.

    ``replace``: if another cache is there, it is replaced; otherwise that is an error.

    Raises ConfigError, CacheError, CacheCorruptError, TransferError, StorageError, LockedError.
    """
    store = open_store(address)
    if isinstance(store, WebStore):
        raise ConfigError(
            f"{store.shown}: a web server takes no files",
            expected="a folder, s3:// or hf://",
            remedy="copy the folder to where the server reads its files",
        )
    files = _sound_files(root)
    if isinstance(store, FolderStore):
        _refuse_overlap(root, store)
    if isinstance(store, HubStore):
        refuse_too_many_files([file.name for file in files], store.shown)
    push = _Push(CacheLayout(root.resolve()), store, files, workers, progress)
    with _only_push(store):
        push.make_room(replace)
        return push.send()


@contextmanager
def _only_push(store: Store) -> Iterator[None]:
    """Keep other pushes on this machine out of a folder. Raises ConfigError, LockedError."""
    if not isinstance(store, FolderStore):
        yield
        return
    refuse_foreign_target(store.root)
    with WriterLock(store.root / ".lock"):
        yield


def _sound_files(root: Path) -> list[PublishedFile]:
    """The files of a complete cache whose records and sizes agree.

    Raises CacheError if it is not complete or a partial copy, CacheCorruptError if it is damaged.
    """
    cache = TargetCache.open(root)  # raises if it is not complete
    layout = cache.layout
    refuse_copy(layout, "it was not sent")
    report = verify_cache(layout.root, deep=False)
    if report.problems:
        raise CacheCorruptError(
            f"the cache {layout.root} is damaged: nothing was sent",
            expected="files and records that agree",
            found="\n".join(first_lines(report.problems, _PROBLEMS_SHOWN)),
            remedy=f"`{layout.verify_command()}` lists all damage",
        )
    data = read_bounded(layout.checksums, MAX_LIST_BYTES)
    return [*parse_list(data, cache.manifest, str(layout.root)).values()]


def _refuse_overlap(root: Path, store: FolderStore) -> None:
    source = root.resolve()
    if store.root.is_relative_to(source) or source.is_relative_to(store.root):
        raise ConfigError(
            f"{store.root} and the cache {source} lie inside each other",
            expected="separate folders",
            remedy="choose another folder",
        )
    refuse_links(store.root)


class _Push:
    """One push."""

    def __init__(
        self,
        layout: CacheLayout,
        store: Store,
        files: Sequence[PublishedFile],
        workers: int,
        progress: Progress,
    ) -> None:
        self._layout, self._store, self._files = layout, store, files
        self._workers, self._progress = workers, progress
        self._list_sha256 = sha256_file(layout.checksums)
        self._lock = threading.Lock()
        self._kept = self._sent_bytes = 0

    def make_room(self, replace: bool) -> None:
        """Make another cache at the target incomplete, and remove the files that only it has.

        Raises CacheError if there is one, unless ``replace``.
        """
        there = self._cache_there()
        own = {file.name: file.sha256 for file in self._files}
        if there is None or there.files[MANIFEST].sha256 == own[MANIFEST]:
            return
        if not replace:
            raise CacheError(
                f"another cache is at {self._store.shown}: nothing was sent",
                expected=f"no cache, or the one with digest {self._digest()}",
                found=f"content digest {there.manifest.content_digest}",
                remedy="choose another address, or replace that cache with --replace",
            )
        for name in (MANIFEST, SIGNATURE, *(there.files.keys() - own.keys())):
            self._remove(name)
        self._flush()

    def _flush(self) -> None:
        retried(self._store, MANIFEST, self._store.flush)

    def _remove(self, name: str) -> None:
        retried(self._store, name, lambda: self._store.remove(name))

    def _cache_there(self) -> RemoteRecords | None:
        try:
            return receive_records(self._store)
        except TransferError:
            raise
        except CacheCorruptError as error:
            raise CacheError(
                f"{self._store.shown} has a manifest.json that is not that of an intact cache: "
                "nothing was sent",
                found=error.problem,
                remedy="choose another address, or remove what is there",
            ) from error
        except DistInitError as error:
            if error.named_input:  # nothing is there
                return None
            raise

    def _digest(self) -> str:
        return TargetCache.open(self._layout.root).manifest.content_digest

    def send(self) -> Pushed:
        """Send all files that are not there yet, the list first and ``manifest.json`` last."""
        self._write(CHECKSUMS, self._list_sha256)
        first = [file for file in self._files if file.name != MANIFEST]
        sizes = {file.name: (self._layout.root / file.name).stat().st_size for file in self._files}
        total_bytes = sum(sizes.values())
        move_all(
            first,
            self._send_one,
            workers=self._workers,
            progress=self._progress,
            what="push",
            total_bytes=total_bytes - sizes[MANIFEST],
        )
        self._flush()
        last = [file for file in self._files if file.name == MANIFEST]
        if self._layout.signature.exists():
            self._write(SIGNATURE, sha256_file(self._layout.signature))
        self._flush()
        self._refuse_changes(first)
        for file in last:
            self._write(file.name, file.sha256)
        self._flush()
        return Pushed(
            target=self._store.shown,
            content_digest=self._digest(),
            files=len(self._files) + 1,
            kept=self._kept,
            sent_bytes=self._sent_bytes,
        )

    def _refuse_changes(self, sent: Sequence[PublishedFile]) -> None:
        """Raise TransferError if another push has written to the same place meanwhile.

        Folders are locked, and the hub has commits, so that only object stores are asked.
        """
        if not isinstance(self._store, ObjectStore):
            return

        def check(file: PublishedFile, _: Counter, __: threading.Event) -> None:
            self._refuse_if_changed(file.name, file.sha256)

        listed = PublishedFile(CHECKSUMS, self._list_sha256, "fixed")
        move_all(
            [*sent, listed],
            check,
            workers=self._workers,
            progress=self._progress,
            what="check",
            total_bytes=None,
        )
        there = receive_if_there(self._store, MANIFEST, MAX_RECORD_BYTES)
        own = {file.name: file.sha256 for file in self._files}[MANIFEST]
        if there is not None and hashlib.sha256(there).hexdigest() != own:
            raise self._changed(MANIFEST)

    def _refuse_if_changed(self, name: str, sha256: str) -> None:
        size = (self._layout.root / name).stat().st_size
        if not retried(self._store, name, lambda: self._store.holds(name, size, sha256)):
            raise self._changed(name)

    def _changed(self, name: str) -> TransferError:
        return TransferError(
            f"another push to {self._store.shown} has begun: this one was ended",
            expected="one push to a place at a time",
            found=f"{name} of another cache",
            remedy="wait for the other push to end; if its cache is to be replaced, run the same "
            "command again with --replace",
        )

    def _send_one(self, file: PublishedFile, counter: Counter, _: threading.Event) -> None:
        counter.bytes(self._write(file.name, file.sha256))

    def _write(self, name: str, sha256: str) -> int:
        """Send one file unless it is there; returns its size. Raises CacheCorruptError."""
        path = self._layout.root / name
        size = path.stat().st_size
        if retried(self._store, name, lambda: self._store.holds(name, size, sha256)):
            with self._lock:
                self._kept += 1
            return size
        if sha256_file(path) != sha256:
            raise CacheCorruptError(
                f"{path} is damaged: it was not sent",
                expected=f"sha256 {sha256}",
                found="other bytes",
                remedy=f"`{self._layout.verify_command()}` lists all damage",
            )
        if isinstance(self._store, ObjectStore) and name != CHECKSUMS:
            self._refuse_if_changed(CHECKSUMS, self._list_sha256)
        retried(self._store, name, lambda: self._store.write(name, path, sha256))
        with self._lock:
            self._sent_bytes += size
        return size
