"""Verifies every byte of a cache and marks damaged units to be extracted again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from distinit.pipeline.cache.damage import remove_commits, summaries_without
from distinit.pipeline.cache.fence import lower_fence, raise_fence
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.opening import check_writable
from distinit.pipeline.cache.records import read_manifest
from distinit.pipeline.cache.verify import VerifyReport, verify_cache
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.progress import Progress
from distinit.pipeline.records import write_record
from distinit.pipeline.storage import refuse_links
from distinit.schemas.errors import CacheError

__all__ = ["mark_units", "repair_cache"]


def repair_cache(
    root: Path, *, workers: int | None = None, progress: Progress | None = None
) -> VerifyReport:
    """Verify all bytes, and remove the commit records of damaged units.

    Rerunning the same extraction writes these units, and all files derived from the commit
    records, again. The report describes the state before the repair.

    Raises:
        LockedError: Another process writes the cache.
        CacheError: The folder holds links, or a damaged cache of a newer minor version.
        StorageError: It cannot be written to.
    """
    layout = CacheLayout(root.resolve())
    refuse_links(layout.root, CacheError)
    with WriterLock(layout.lock):
        raise_fence(layout.fence)
        try:
            report = verify_cache(root, workers=workers, progress=progress)
            if report.damaged_units:
                _mark(layout, report.damaged_units)
        finally:
            lower_fence(layout.fence)
    own = (layout.lock.name, layout.fence.name)  # of this process, not of another writer
    notes = tuple(note for note in report.notes if note.partition(":")[0] not in own)
    return replace(report, notes=notes)


def mark_units(root: Path, units: Collection[tuple[str, int]]) -> None:
    """Mark pairs (teacher, unit) to be extracted again. Raises as ``repair_cache``."""
    layout = CacheLayout(root.resolve())
    refuse_links(layout.root, CacheError)
    with WriterLock(layout.lock):
        raise_fence(layout.fence)
        try:
            _mark(layout, units)
        finally:
            lower_fence(layout.fence)


def _mark(layout: CacheLayout, units: Collection[tuple[str, int]]) -> None:
    manifest = read_manifest(layout)
    check_writable(layout, manifest)
    teachers = summaries_without(manifest, units)
    unfinished = {"complete": False, "content_digest": "", "teachers": teachers}
    write_record(manifest.model_copy(update=unfinished), layout.manifest)
    layout.checksums.unlink(missing_ok=True)
    remove_commits(layout, units)
