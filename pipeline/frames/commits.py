"""Reads and validates the records of a frame store, and checks the sizes of its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from distinit.pipeline.frames.layout import ROWS_PER_BATCH, StoreLayout
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.output_paths import kind_of_data
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
_MIN_ROW_BYTES = 20  # in the file: offsets of id and JPEG, frame index, checksum
_RERUN = (
    "rerun the command that wrote the store (extract --frames, frames build, flow build, finetune)"
)


def read_manifest(root: Path) -> FrameStoreManifest:
    """Read ``store.json``. Raises FrameStoreError if it is missing, damaged or another format."""
    path = StoreLayout(root).manifest
    if not os.path.lexists(path):
        kind = kind_of_data(root)
        raise FrameStoreError(
            f"{root} is not a frame store",
            expected=str(path),
            found="no such file" if kind is None else f"no such file: this is a {kind}",
            remedy="build one with `distinit frames build`, or name another folder",
            named_input=True,
        )
    remedy = "build the store again in another folder, or fetch it again"
    manifest = read_record(path, FrameStoreManifest, error=FrameStoreError, remedy=remedy)
    units = manifest.units or ()
    if not manifest.is_intact or list(units) != sorted({unit for unit in units if unit >= 0}):
        raise FrameStoreError(
            f"{path} is damaged",
            expected="a seal that matches the other fields, and units in ascending order",
            found="other values",
            remedy=remedy,
        )
    return manifest


def present_units(
    root: Path, manifest: FrameStoreManifest, *, allow_incomplete: bool
) -> Sequence[int]:
    """Committed units of the store, ascending.

    Raises FrameStoreError if a unit is not committed, unless ``allow_incomplete``.
    """
    committed = StoreLayout(root).committed_units()
    units = sorted(committed) if manifest.units is None else manifest.units
    present = [unit for unit in units if unit in committed]
    if not allow_incomplete and (manifest.units is None or len(present) < len(units)):
        writer = WriterLock(StoreLayout(root).lock).holder()
        raise FrameStoreError(
            f"the frame store {root} is not finished",
            expected="all units" if manifest.units is None else f"{len(units)} units",
            found=f"{len(present)} committed"
            + ("" if writer is None else f"; a process is writing it now ({writer})"),
            remedy=f"{_RERUN} to resume it"
            if writer is None
            else "wait until that process has finished",
        )
    return present


def commits_key(layout: StoreLayout, units: Iterable[int]) -> str:
    """sha256 over the bytes of the commit records; it names what is derived from them.

    Raises FrameStoreError if a record cannot be read.
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
    """Yield the commit records of ``units``, with one in memory at a time.

    Raises FrameStoreError if one is damaged.
    """
    return (read_commit(layout, unit) for unit in units)


def read_commit(layout: StoreLayout, unit: int) -> StoreCommit:
    """The record of one unit. Raises FrameStoreError if it is damaged or inconsistent."""
    path = layout.commit(unit)
    commit = read_record(path, StoreCommit, error=FrameStoreError, remedy=_rebuild_remedy(unit))
    if commit.unit != unit or set(commit.files) != {layout.unit_file_name(unit)}:
        raise FrameStoreError(
            f"{path} names other files",
            expected=f"unit {unit}: {layout.unit_file_name(unit)}",
            found=f"unit {commit.unit}: {', '.join(sorted(commit.files))[:200]}",
            remedy="do not use this folder; ask its sender for a clean copy",
        )
    problem = _contradiction(commit, commit.files[layout.unit_file_name(unit)].size)
    if problem is not None:
        raise damaged_unit(path, unit, "a consistent record", problem)
    return commit


def _contradiction(commit: StoreCommit, file_bytes: int) -> str | None:
    """What is inconsistent in a commit, or None.

    Readers rely on rows and batches that are within the file.
    """
    if not commit.is_intact:
        return "a seal that does not match the other fields"
    row = 0
    for rows in commit.videos:
        if rows.first_row != row:
            return f"rows of video {rows.video_id} from row {rows.first_row}, not {row}"
        if rows.frame_count == 0 or rows.height * rows.width > MAX_STORED_PIXELS:
            size = f"{rows.width}x{rows.height} pixels"
            return f"{rows.frame_count} frames of {size} in video {rows.video_id}"
        row += rows.frame_count
    if row * _MIN_ROW_BYTES > file_bytes or len(commit.batches) != -(-row // ROWS_PER_BATCH):
        return f"{row} rows, {len(commit.batches)} batches in {file_bytes} bytes"
    for number, batch in enumerate(commit.batches):
        row_count = min(ROWS_PER_BATCH, row - number * ROWS_PER_BATCH)
        ends = (
            batch.offsets + (row_count + 1) * _OFFSET_BYTES,
            batch.checksums + row_count * _CHECKSUM_BYTES,
            batch.jpegs,
        )
        if max(ends) > file_bytes:
            return f"batch {number} beyond the end of the file"
    return None


def check_size(layout: StoreLayout, unit: int, expected_bytes: int) -> None:
    """Raise FrameStoreError unless the file of a unit is in the store and has ``expected_bytes``.

    Reading a mapped file that was truncated would end the process with a bus error.
    """
    name = layout.unit_file_name(unit)
    try:
        size: int | None = safe_join(layout.root, name).stat().st_size
    except OSError:
        size = None
    except CacheCorruptError as error:
        raise FrameStoreError(
            error.problem, expected=error.expected, found=error.found, remedy=error.remedy
        ) from error
    if size != expected_bytes:
        raise FrameStoreError(
            f"{layout.root / name} is not what was committed",
            expected=f"{expected_bytes} bytes",
            found="no such file" if size is None else f"{size} bytes",
            remedy=f"{_RERUN} to rebuild this unit, or fetch the file again",
        )


def damaged_unit(path: Path, unit: int, expected: str, found: object) -> FrameStoreError:
    """The error for a unit whose record or file is damaged."""
    return FrameStoreError(
        f"{path} is damaged", expected=expected, found=found, remedy=_rebuild_remedy(unit)
    )


def _rebuild_remedy(unit: int) -> str:
    record = StoreLayout(Path()).commit_name(unit)
    return f"delete {record} of the store, then {_RERUN} to rebuild this unit"
