"""Copies a cache from elsewhere into a folder: verified as it arrives, resumable, whole or absent.

Files arrive in ``TARGET.partial``, which is renamed to ``TARGET`` at the end. Records come first:
the content digest is computed from them before anything large is received, and they tell the size
and the sha256 of every other file.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.cache.arrivals import (
    checked_state,
    expected_record,
    expected_sized,
    sizes_of,
)
from distinit.pipeline.cache.copies import Selection, copy_of
from distinit.pipeline.cache.foreign import refuse_foreign_staging
from distinit.pipeline.cache.layout import PULL_NOTES, CacheLayout
from distinit.pipeline.cache.published import CHECKSUMS, SIGNATURE, PublishedFile
from distinit.pipeline.cache.refetch import FinishedPull, check_finished, read_small, reopen
from distinit.pipeline.cache.remote_records import RemoteRecords, receive_records
from distinit.pipeline.cache.tree import list_tree
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.output_paths import refuse_inside_data, refuse_nameless
from distinit.pipeline.progress import Progress
from distinit.pipeline.records import write_record
from distinit.pipeline.storage import (
    PARTIAL_SUFFIX,
    atomic_write_bytes,
    fsync_dir,
    refuse_links,
    sha256_file,
    storage_errors,
)
from distinit.pipeline.transport.parallel import Counter, move_all
from distinit.pipeline.transport.receive import Expected, receive_file, receive_if_there
from distinit.pipeline.transport.stores import Store, open_store
from distinit.schemas.copies import CopyRecord
from distinit.schemas.errors import ConfigError, StorageError

__all__ = ["Pulled", "pull_cache", "pull_records"]


@dataclass(frozen=True, slots=True)
class Pulled:
    """What ``pull_cache`` did. ``kept``: files that were there from an earlier attempt."""

    source: str
    content_digest: str
    copy: CopyRecord | None
    units: int
    teachers: tuple[str, ...]
    files: int
    kept: int
    received_bytes: int


def pull_cache(
    address: str,
    target: Path,
    selection: Selection,
    *,
    workers: int,
    expect: str | None,
    progress: Progress,
) -> Pulled:
    """Copy the cache at ``address``, or a part of it, to the folder ``target``.

    Raises ConfigError, CacheError, CacheCorruptError, TransferError, StorageError, LockedError.
    """
    refuse_nameless(target)
    store = open_store(address)
    records = receive_records(store, expect)
    teachers = selection.check_teachers(records.manifest)
    selection.check_units(records.manifest)
    refuse_inside_data(target.parent)
    pull = _Pull(store, target, records, workers, progress)
    finished = check_finished(target, records, teachers, selection, workers, progress)
    if finished is not None and not finished.damaged:
        return pull.accept(finished)
    if finished is not None:
        reopen(target, pull.staging, finished, records)
    is_new = not pull.staging.exists()
    with storage_errors(target):
        pull.staging.mkdir(parents=True, exist_ok=True)
    refuse_links(pull.staging)
    refuse_foreign_staging(pull.staging, records.list_sha256)
    with WriterLock(pull.staging / ".lock"):
        try:
            copy = pull.receive(teachers, selection)
        except ConfigError:  # a list of videos that does not fit
            if is_new:
                shutil.rmtree(pull.staging, ignore_errors=True)
            raise
        pull.publish()
    units = records.manifest.row_space.units if copy is None else len(copy.units)
    return pull.result(copy, units, teachers)


def pull_records(
    store: Store, records: RemoteRecords, folder: Path, *, workers: int, progress: Progress
) -> None:
    """Receive all files of a cache but its shards, unless ``folder`` exists, which has them then.

    Waits while another process does the same. Raises as ``pull_cache``.
    """
    if folder.is_dir():
        return
    pull = _Pull(store, folder, records, workers, progress)
    with storage_errors(folder):
        pull.staging.mkdir(parents=True, exist_ok=True, mode=0o700)
    refuse_foreign_staging(pull.staging, records.list_sha256)
    with WriterLock(pull.staging / ".lock").waiting(progress.message):
        refuse_foreign_staging(pull.staging, records.list_sha256)
        if folder.is_dir():  # the process that was waited for has received it
            shutil.rmtree(pull.staging)
            return
        refuse_links(pull.staging)
        pull.receive(sorted(records.manifest.teachers), Selection(), shards=False)
        pull.publish()


class _Pull:
    """One pull. ``staging``: where the files arrive."""

    def __init__(
        self,
        store: Store,
        target: Path,
        records: RemoteRecords,
        workers: int,
        progress: Progress,
    ) -> None:
        self.store, self.target, self.records = store, target, records
        self.staging = target.with_name(target.name + PARTIAL_SUFFIX)
        self._workers, self._progress = workers, progress
        self._layout = CacheLayout(self.staging.resolve())
        self._files = self._kept = self._received_bytes = 0

    def accept(self, finished: FinishedPull) -> Pulled:
        """The result for a folder in which every file is as it was sent."""
        self._files = self._kept = finished.files
        self._receive_signature(CacheLayout(self.target.resolve()))
        units = self.records.manifest.row_space.units
        copy = finished.copy
        teachers = tuple(sorted(self.records.manifest.teachers)) if copy is None else copy.teachers
        return self.result(copy, units if copy is None else len(copy.units), teachers)

    def receive(
        self, teachers: Sequence[str], selection: Selection, *, shards: bool = True
    ) -> CopyRecord | None:
        """Receive all selected files; returns the record of the copy if it is a partial one."""
        self._begin()
        files, manifest = self.records.files, self.records.manifest
        self._move([expected_record(f) for f in files.values() if not f.is_sized], "records", None)
        state = checked_state(self._layout)
        units = selection.units_of(manifest, state.plan)
        copy = copy_of(manifest, state, teachers, units)
        chosen = set(units)
        wanted = {
            name: file
            for name, file in files.items()
            if (file.teacher is None or file.teacher in teachers)
            and (file.unit is None or file.unit in chosen)
            and (shards or file.kind != "shard")
        }
        sizes = sizes_of(state)
        sized = [
            expected_sized(file, sizes, state, self.store.shown)
            for file in wanted.values()
            if file.is_sized
        ]
        total_bytes = sum(file.limit_bytes for file in sized)
        self._refuse_without_space(sized)
        self._move(sized, "pull", total_bytes)
        self._finish(wanted, copy)
        self._files = len(wanted) + (1 if copy is None else 2)  # the list of files, copy.json
        return copy

    def _begin(self) -> None:
        """Remove what earlier pulls left, except files that this cache has too."""
        notes, own = self.staging / PULL_NOTES, self.records.list_sha256
        is_resumed = read_small(notes, len(own)) == own.encode()
        with storage_errors(self.staging):
            for name in list_tree(self._layout).files:
                file, path = self.records.files.get(name), self._layout.root / name
                if file is None or not (is_resumed or sha256_file(path) == file.sha256):
                    path.unlink()
        atomic_write_bytes(notes, own.encode())
        atomic_write_bytes(self.staging / CHECKSUMS, self.records.list_bytes)

    def _move(self, files: Sequence[Expected], what: str, total_bytes: int | None) -> None:
        """Receive the files that are not there yet."""
        missing = [file for file in files if not self._is_there(file)]
        self._kept += len(files) - len(missing)
        left_bytes = sum(file.limit_bytes for file in missing)
        lock = threading.Lock()

        def move(file: Expected, counter: Counter, stopping: threading.Event) -> None:
            size = receive_file(
                self.store, file, self._layout.root, on_bytes=counter.bytes, stopping=stopping
            )
            with lock:
                self._received_bytes += size

        move_all(
            missing,
            move,
            workers=self._workers,
            progress=self._progress,
            what=what,
            total_bytes=total_bytes,
            done_bytes=0 if total_bytes is None else total_bytes - left_bytes,
        )

    def _is_there(self, file: Expected) -> bool:
        """Whether a file has arrived: it got its name when its digest had been checked."""
        try:
            size = (self._layout.root / file.name).lstat().st_size
        except OSError:
            return False
        return size <= file.limit_bytes and file.size_bytes in (None, size)

    def _refuse_without_space(self, files: Sequence[Expected]) -> None:
        needed_bytes = sum(file.limit_bytes for file in files if not self._is_there(file))
        free_bytes = shutil.disk_usage(self.staging).free
        if needed_bytes > free_bytes:
            raise StorageError(
                f"the disk of {self.target} is too small for this cache",
                expected=f"{needed_bytes / 1e9:.3g} GB",
                found=f"{free_bytes / 1e9:.3g} GB free",
                remedy="choose another disk, or copy a part: --teacher, --units, --videos",
            )

    def _finish(self, wanted: Mapping[str, PublishedFile], copy: CopyRecord | None) -> None:
        """Remove what is not part of the copy, such as records that were only needed to check."""
        with storage_errors(self.staging):
            for name in list_tree(self._layout).files:
                if name not in wanted:
                    (self._layout.root / name).unlink()
            _remove_empty_folders(self._layout.root)
        if copy is not None:
            write_record(copy, self._layout.copy)
        self._receive_signature(self._layout)

    def _receive_signature(self, layout: CacheLayout) -> None:
        """The signature is checked by whoever has the public key."""
        limit_bytes = self._max_signature_bytes()
        signature = receive_if_there(self.store, SIGNATURE, limit_bytes)
        if signature is not None and read_small(layout.signature, limit_bytes) != signature:
            atomic_write_bytes(layout.signature, signature)

    def _max_signature_bytes(self) -> int:
        """A signature is the list of files as JSON in base64, with a few hundred bytes around."""
        return 4 * len(self.records.list_bytes) + (1 << 20)

    def publish(self) -> None:
        """Give the folder its name."""
        with storage_errors(self.target):
            (self.staging / PULL_NOTES).unlink(missing_ok=True)
            (self.staging / ".lock").unlink()
            self.staging.replace(self.target)
            fsync_dir(self.target.parent)

    def result(self, copy: CopyRecord | None, units: int, teachers: tuple[str, ...]) -> Pulled:
        """What was done."""
        return Pulled(
            source=self.store.shown,
            content_digest=self.records.manifest.content_digest,
            copy=copy,
            units=units,
            teachers=teachers,
            files=self._files,
            kept=self._kept,
            received_bytes=self._received_bytes,
        )


def _remove_empty_folders(root: Path) -> None:
    """Remove the folders below ``root`` that have no files. Raises OSError."""
    folders = [path for path in root.rglob("*") if path.is_dir() and not path.is_symlink()]
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
