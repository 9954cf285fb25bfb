"""Finds units whose files differ in size from their commit, and marks units for extraction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import UnitPlan
from distinit.pipeline.cache.state import committed_units
from distinit.pipeline.storage import fsync_dir
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import CacheManifest, FileEntry, TeacherSummary, UnitCommit
from distinit.schemas.teacher import TeacherRecord

__all__ = ["UnitDamage", "find_damage", "remove_commits", "summaries_without"]


@dataclass(frozen=True, slots=True)
class UnitDamage:
    """Why the stored targets of a teacher for a unit cannot be used."""

    teacher_id: str
    unit: int
    problem: str

    def __str__(self) -> str:
        return f"unit {self.unit} of teacher {self.teacher_id}: {self.problem}"


def find_damage(
    layout: CacheLayout,
    plan: UnitPlan,
    records: Mapping[str, TeacherRecord],
    *,
    read: Callable[[TeacherRecord, int], UnitCommit],
    complete: bool,
) -> list[UnitDamage]:
    """Units whose commit record cannot be read, or whose files are missing or have another size.

    Only sizes are checked: `distinit cache verify` reads the bytes. ``complete``: the cache is
    recorded as complete, so that a unit without a commit record is damaged too.
    """
    damage = []
    for name, record in records.items():
        committed = committed_units(layout, name, plan.units)
        if complete:
            absent = sorted(set(range(plan.units)) - set(committed))
            damage += [UnitDamage(name, unit, "commit record missing") for unit in absent]
        for unit in committed:
            try:
                commit = read(record, unit)
            except CacheCorruptError:
                damage.append(UnitDamage(name, unit, "commit record unreadable"))
                continue
            if problem := _wrong_size(layout, commit.files):
                damage.append(UnitDamage(name, unit, problem))
    return damage


def _wrong_size(layout: CacheLayout, files: Mapping[str, FileEntry]) -> str:
    """Describes the first of ``files`` that is missing or has another size; "" if none has."""
    for name, entry in files.items():
        try:
            size = (layout.root / name).stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return f"{_kind_of(name)} missing"
        if size != entry.size:
            return f"{_kind_of(name)} of {size} bytes instead of {entry.size}"
    return ""


def _kind_of(name: str) -> str:
    """``frames table``, ``confidence table``, ``logits shard``."""
    parts = PurePosixPath(name).parts
    kind = parts[0] if parts[0] == "frames" else parts[2]
    return f"{kind} table" if kind in ("frames", "confidence") else f"{kind} shard"


def remove_commits(layout: CacheLayout, units: Iterable[tuple[str, int]]) -> None:
    """Remove the commit records of pairs (teacher, unit), which are then extracted again."""
    folders: set[str] = set()
    for teacher_id, unit in units:
        layout.commit(teacher_id, unit).unlink(missing_ok=True)
        folders.add(teacher_id)
    for teacher_id in folders:
        folder = layout.commit(teacher_id, 0).parent
        if folder.is_dir():
            fsync_dir(folder)


def summaries_without(
    manifest: CacheManifest, units: Collection[tuple[str, int]]
) -> dict[str, TeacherSummary]:
    """The teachers of the manifest, with these pairs (teacher, unit) no longer counted."""
    lost = Counter(name for name, _ in units)
    return {
        name: summary.model_copy(
            update={"units_committed": max(summary.units_committed - lost[name], 0)}
        )
        for name, summary in manifest.teachers.items()
    }
