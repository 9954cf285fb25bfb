"""The records of a frame store: read with suspicion, one in memory at a time; file sizes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from distinit.pipeline.frames.layout import ROWS_PER_BATCH, StoreLayout
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.records import MAX_RECORD_BYTES, read_record
from distinit.pipeline.storage import read_bounded, safe_join
from distinit.schemas.errors import CacheCorruptError, FrameStoreError
from distinit.schemas.frames import MAX_STORED_PIXELS, FrameStoreManifest, StoreCommit

__all__ = [
    "check_size",
    "commits_key",
    "damaged_unit",
    "present_units",
    "read_commit",
    "read_commits",
    "read_manifest",
]

_OFFSET_BYTES = 4
_CHECKSUM_BYTES = 4
_ROW_BYTES = 20  # at least, of a file: offsets of id and JPEG, frame index, checksum
_RERUN = (
    "run the command that wrote the store again (extract --frames, frames build, flow build, "
    "finetune)"
)


def read_manifest(root: Path) -> FrameStoreManifest:
    """Read ``store.json``. Raises FrameStoreError if it is missing or not one of ours."""
    path = StoreLayout(root).manifest
    if not os.path.lexists(path):
        raise FrameStoreError(
            f"{root} is no frame store",
            expected=str(path),
            found="no such file",
            remedy="build one with `distinit frames build`, or give another folder",
        )
    again = "build the store again in another folder, or fetch it again"
    manifest = read_record(path, FrameStoreManifest, error=FrameStoreError, remedy=again)
    units = manifest.units or ()
    if not manifest.is_intact or list(units) != sorted({unit for unit in units if unit >= 0}):
        raise FrameStoreError(
            f"{path} is damaged",
            expected="a seal that fits the other fields, and units in ascending order",
            found="other values",
            remedy=again,
        )
    return manifest


def present_units(
    root: Path, manifest: FrameStoreManifest, *, allow_incomplete: bool
) -> Sequence[int]:
    """Units of the store that are committed, ascending.

    Raises FrameStoreError unless all are, or ``allow_incomplete``.
    """
    committed = StoreLayout(root).committed_units()
    units = sorted(committed) if manifest.units is None else manifest.units
    there = [unit for unit in units if unit in committed]
    if not allow_incomplete and (manifest.units is None or len(there) < len(units)):
        writer = WriterLock(StoreLayout(root).lock).holder()
        raise FrameStoreError(
            f"the frame store {root} is not finished",
            expected="all units" if manifest.units is None else f"{len(units)} units",
            found=f"{len(there)} committed"
            + ("" if writer is None else f"; a process is writing it now ({writer})"),
            remedy=f"{_RERUN}: it continues where it stopped"
            if writer is None
            else "wait until that process is through",
        )
    return there


def commits_key(layout: StoreLayout, units: Iterable[int]) -> str:
    """sha256 over the bytes of the commit records: what is derived from them is named by it.

    Raises FrameStoreError for one that cannot be read.
    """
    digest = hashlib.sha256(b"distinit frame store\n")
    for unit in units:
        path = layout.commit(unit)
        try:
            raw = read_bounded(path, MAX_RECORD_BYTES)
        except OSError as error:
            raise damaged_unit(path, unit, "a commit record", error.strerror) from error
        digest.update(b"%d %d\n" % (unit, len(raw)))
        digest.update(raw)
    return digest.hexdigest()


def read_commits(layout: StoreLayout, units: Iterable[int]) -> Iterator[StoreCommit]:
    """One record after the other. Raises FrameStoreError for damaged ones."""
    return (read_commit(layout, unit) for unit in units)


def read_commit(layout: StoreLayout, unit: int) -> StoreCommit:
    """The record of one unit. Raises FrameStoreError where it is damaged or contradicts itself."""
    path = layout.commit(unit)
    commit = read_record(path, StoreCommit, error=FrameStoreError, remedy=_redo(unit))
    if commit.unit != unit or set(commit.files) != {layout.unit_file_name(unit)}:
        raise FrameStoreError(
            f"{path} speaks of other files",
            expected=f"unit {unit}: {layout.unit_file_name(unit)}",
            found=f"unit {commit.unit}: {', '.join(sorted(commit.files))[:200]}",
            remedy="do not use this folder; ask its sender for a clean copy",
        )
    problem = _contradiction(commit, commit.files[layout.unit_file_name(unit)].size)
    if problem is not None:
        raise damaged_unit(path, unit, "a record that agrees with itself", problem)
    return commit


def _contradiction(commit: StoreCommit, file_bytes: int) -> str | None:
    """What of a commit cannot be: readers rely on rows and places that lie within the file."""
    if not commit.is_intact:
        return "its seal is not that of the other fields"
    row = 0
    for run in commit.videos:
        if run.first_row != row:
            return f"a run of video {run.video_id} at row {run.first_row}, not {row}"
        if run.frame_count == 0 or run.height * run.width > MAX_STORED_PIXELS:
            size = f"{run.width}x{run.height} pixels"
            return f"{run.frame_count} frames of {size} in video {run.video_id}"
        row += run.frame_count
    if row * _ROW_BYTES > file_bytes or len(commit.batches) != -(-row // ROWS_PER_BATCH):
        return f"{row} rows, {len(commit.batches)} batches in {file_bytes} bytes"
    for number, place in enumerate(commit.batches):
        rows = min(ROWS_PER_BATCH, row - number * ROWS_PER_BATCH)
        ends = (
            place.offsets + (rows + 1) * _OFFSET_BYTES,
            place.checksums + rows * _CHECKSUM_BYTES,
            place.jpegs,
        )
        if max(ends) > file_bytes:
            return f"batch {number} beyond the end of the file"
    return None


def check_size(layout: StoreLayout, unit: int, wanted: int) -> None:
    """Raise FrameStoreError if the file of a unit has not ``wanted`` bytes, or is a link to
    elsewhere. A file cut short would otherwise end a reader with a bus error."""
    name = layout.unit_file_name(unit)
    try:
        size: int | None = safe_join(layout.root, name).stat().st_size
    except OSError:
        size = None
    except CacheCorruptError as error:
        raise FrameStoreError(
            error.problem, expected=error.expected, found=error.found, remedy=error.remedy
        ) from error
    if size != wanted:
        raise FrameStoreError(
            f"{layout.root / name} is not what was committed",
            expected=f"{wanted} bytes",
            found="no such file" if size is None else f"{size} bytes",
            remedy=f"{_RERUN}: it does this unit again; or fetch the file again",
        )


def damaged_unit(path: Path, unit: int, expected: str, found: object) -> FrameStoreError:
    """The error of a unit whose record or file is not what it should be."""
    return FrameStoreError(f"{path} is damaged", expected=expected, found=found, remedy=_redo(unit))


def _redo(unit: int) -> str:
    record = StoreLayout(Path()).commit_name(unit)
    return f"delete {record} of the store, then {_RERUN}: it does this unit again"
