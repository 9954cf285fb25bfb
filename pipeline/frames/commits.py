"""The commit records of a frame store, one in memory at a time; the sizes of their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.storage import safe_join
from distinit.schemas.errors import CacheCorruptError, FrameStoreError
from distinit.schemas.frames import FrameStoreManifest, StoreCommit

__all__ = ["check_size", "commits_key", "present_units", "read_commits"]


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
        raise FrameStoreError(
            f"the frame store {root} is not finished",
            expected="all units" if manifest.units is None else f"{len(units)} units",
            found=f"{len(there)} committed",
            remedy="run the command that writes it again: it continues where it stopped",
        )
    return there


def commits_key(layout: StoreLayout, units: Iterable[int]) -> str:
    """sha256 over the bytes of the commit records: what is derived from them is named by it."""
    digest = hashlib.sha256(b"distinit frame store\n")
    for unit in units:
        raw = layout.commit(unit).read_bytes()
        digest.update(b"%d %d\n" % (unit, len(raw)))
        digest.update(raw)
    return digest.hexdigest()


def read_commits(layout: StoreLayout, units: Iterable[int]) -> Iterator[StoreCommit]:
    """One record after the other. Raises FrameStoreError for damaged ones."""
    return (_read_commit(layout, unit) for unit in units)


def _read_commit(layout: StoreLayout, unit: int) -> StoreCommit:
    path = layout.commit(unit)
    try:
        commit = StoreCommit.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise FrameStoreError(
            f"{path} cannot be read", found=f"{first['loc']}: {first['msg']}"
        ) from error
    if commit.unit != unit or set(commit.files) != {layout.unit_name(unit)}:
        raise FrameStoreError(
            f"{path} speaks of other files",
            expected=f"unit {unit}: {layout.unit_name(unit)}",
            found=f"unit {commit.unit}: {', '.join(sorted(commit.files))[:200]}",
            remedy="do not use this folder; ask its sender for a clean copy",
        )
    return commit


def check_size(layout: StoreLayout, unit: int, wanted: int) -> None:
    """Raise FrameStoreError if the file of a unit has not ``wanted`` bytes, or is a link to
    elsewhere. A file cut short would otherwise end a reader with a bus error."""
    name = layout.unit_name(unit)
    try:
        size: int | None = safe_join(layout.root, name).stat().st_size
    except FileNotFoundError:
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
            remedy=f"delete commits/unit-{unit:05d}.json and run the command again",
        )
