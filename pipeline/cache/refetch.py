"""Checks the folder of an earlier pull, so that just its damaged files are fetched again."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.cache.copies import Selection, check_copy, read_copy
from distinit.pipeline.cache.layout import PULL_NOTES, CacheLayout
from distinit.pipeline.cache.opening import read_valid_plan
from distinit.pipeline.cache.published import CHECKSUMS, COPY, MAX_LIST_BYTES
from distinit.pipeline.cache.records import read_manifest, read_teacher
from distinit.pipeline.cache.remote_records import RemoteRecords
from distinit.pipeline.cache.state import read_state
from distinit.pipeline.cache.tree import list_tree
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.progress import Progress
from distinit.pipeline.storage import (
    atomic_write_bytes,
    read_bounded,
    refuse_links,
    sha256_file,
    storage_errors,
)
from distinit.schemas.copies import CopyRecord
from distinit.schemas.errors import CacheError, ConfigError, StorageError
from distinit.schemas.wording import first_names, one_line

__all__ = ["FinishedPull", "check_finished", "read_small", "reopen"]


@dataclass(frozen=True, slots=True)
class FinishedPull:
    """A folder that an earlier pull of the same files has filled.

    Attributes:
        copy: Its ``copy.json``; None if it is a whole cache, or if that record is damaged.
        files: Number of files that it has.
        damaged: Names of the files that are damaged or missing.
    """

    copy: CopyRecord | None
    files: int
    damaged: tuple[str, ...]


def check_finished(
    target: Path,
    records: RemoteRecords,
    teachers: tuple[str, ...],
    selection: Selection,
    workers: int,
    progress: Progress,
) -> FinishedPull | None:
    """Hash all files in the folder ``target``; None if there is nothing yet.

    Raises ConfigError if the folder is anything but the selected part of this cache, and
    StorageError if it has links.
    """
    with storage_errors(target):
        if not target.is_symlink() and not target.exists():
            return None
        if target.is_dir() and not any(target.iterdir()):
            return None
    layout = CacheLayout(target.resolve())
    if not target.is_dir():
        raise _exists(target)
    refuse_links(layout.root)
    if not _is_of_cache(layout, records):
        raise _exists(target)
    plan_is_damaged, copy = _check_selection(target, layout, records, teachers, selection)
    names = _own_names(target, layout, records)
    damaged = _damaged_files(layout, records, names, workers, progress)
    damaged += sorted(_expected_names(records, copy) - set(names)) if copy else []
    if not layout.copy.exists():
        damaged += sorted(records.files.keys() - set(names))
    elif not damaged and not _copy_is_intact(layout, records, copy):
        damaged.append(COPY)
    if plan_is_damaged and not damaged:
        damaged.append(layout.plan.name)
    return FinishedPull(copy, len(names) + 1, tuple(damaged))


def read_small(path: Path, limit_bytes: int) -> bytes | None:
    """The bytes of a file; None if it cannot be read, or is larger than ``limit_bytes``."""
    try:
        return read_bounded(path, limit_bytes)
    except (OSError, StorageError):
        return None


def reopen(target: Path, staging: Path, finished: FinishedPull, records: RemoteRecords) -> None:
    """Make the folder an unfinished pull: without its damaged files, and with the name ``staging``.

    Raises ConfigError if there is such a folder already; LockedError; StorageError.
    """
    if staging.exists() or target.is_symlink():
        link = target.is_symlink()
        raise ConfigError(
            f"{target} has damaged files, which cannot be fetched again",
            expected="the folder itself, not a link to it" if link else f"no folder {staging}",
            found="a link" if link else "an unfinished pull with this name",
            remedy="give the path of the folder" if link else f"remove {staging}, and try again",
        )
    with WriterLock(CacheLayout(target).lock), storage_errors(target):
        for name in finished.damaged:
            if name != COPY:  # it says that this is a part; the pull writes it again
                (target / name).unlink(missing_ok=True)
        # From here on nothing takes the folder for a cache, and a pull goes on with it.
        atomic_write_bytes(target / PULL_NOTES, records.list_sha256.encode())
        target.replace(staging)


def _is_of_cache(layout: CacheLayout, records: RemoteRecords) -> bool:
    """Whether the manifest or, if that is damaged, the list of files is that of the cache."""
    with suppress(CacheError):
        if read_manifest(layout) == records.manifest:
            return True
    return read_small(layout.checksums, MAX_LIST_BYTES) == records.list_bytes


def _check_selection(
    target: Path,
    layout: CacheLayout,
    records: RemoteRecords,
    teachers: tuple[str, ...],
    selection: Selection,
) -> tuple[bool, CopyRecord | None]:
    """Whether the plan is damaged, and ``copy.json`` as far as it can be read.

    Raises ConfigError if the folder has other teachers or units than the selected ones.
    """
    manifest = records.manifest
    all_units = tuple(range(manifest.row_space.units))
    units: tuple[int, ...] | None = None if selection.by_unit else all_units
    plan_is_damaged = False
    try:
        plan, _ = read_valid_plan(layout, manifest)
    except CacheError:
        plan_is_damaged = True
    else:
        units = selection.units_of(manifest, plan)
    is_whole = len(teachers) == len(manifest.teachers) and units == all_units
    try:
        copy = read_copy(layout, manifest)
    except CacheError:
        if is_whole:
            raise _exists(target) from None
        return plan_is_damaged, None
    held = (tuple(sorted(manifest.teachers)), all_units)
    if copy is not None:
        held = (copy.teachers, copy.units)
    if held != (teachers, held[1] if units is None else units):
        raise _exists(target)
    return plan_is_damaged, copy


def _own_names(target: Path, layout: CacheLayout, records: RemoteRecords) -> tuple[str, ...]:
    """The names of the files in the folder. Raises ConfigError if it has others."""
    names = tuple(name for name in list_tree(layout).files if name != PULL_NOTES)
    others = [name for name in names if name not in records.files and name != COPY]
    if others:
        raise ConfigError(
            f"{target} has files that are not part of the cache",
            expected="only files of the cache",
            found=first_names(map(one_line, others)),
            remedy="remove them, or pull into another folder",
        )
    return names


def _damaged_files(
    layout: CacheLayout,
    records: RemoteRecords,
    names: Sequence[str],
    workers: int,
    progress: Progress,
) -> list[str]:
    """The files whose bytes are not the listed ones."""
    listed = [name for name in names if name != COPY]
    with storage_errors(layout.root):
        sizes = {name: (layout.root / name).lstat().st_size for name in listed}
    progress.start("check", round(sum(sizes.values()) / 1e6, 3), "MB")
    damaged = []
    with ThreadPoolExecutor(workers) as threads, storage_errors(layout.root):
        hashes = threads.map(lambda name: sha256_file(layout.root / name), listed)
        for name, found in zip(listed, hashes, strict=True):
            if found != records.files[name].sha256:
                damaged.append(name)
            progress.advance(sizes[name] / 1e6)
    progress.finish()
    if read_small(layout.checksums, MAX_LIST_BYTES) != records.list_bytes:
        damaged.append(CHECKSUMS)
    return damaged


def _expected_names(records: RemoteRecords, copy: CopyRecord) -> set[str]:
    units = set(copy.units)
    return {
        name
        for name, file in records.files.items()
        if (file.teacher is None or file.teacher in copy.teachers)
        and (file.unit is None or file.unit in units)
    }


def _copy_is_intact(layout: CacheLayout, records: RemoteRecords, copy: CopyRecord | None) -> bool:
    """Whether ``copy.json`` belongs to the files, which are intact."""
    if copy is None:
        return False
    with suppress(CacheError):
        plan, _ = read_valid_plan(layout, records.manifest)
        teachers = {name: read_teacher(layout, name) for name in copy.teachers}
        check_copy(layout, records.manifest, copy, read_state(layout, plan, teachers))
        return True
    return False


def _exists(target: Path) -> ConfigError:
    return ConfigError(
        f"{target} exists already: nothing was copied",
        expected="a folder that does not exist, is empty, or has this copy already",
        remedy="choose another folder, or remove this one",
    )
