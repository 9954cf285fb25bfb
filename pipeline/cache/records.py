"""The JSON records of a cache: read with suspicion, written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.storage import atomic_write_bytes, safe_join, sha256_file
from distinit.schemas.base import Record
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import (
    CACHE_FORMAT_VERSION,
    CacheManifest,
    FileEntry,
    UnitCommit,
)
from distinit.schemas.teacher import TeacherRecord

__all__ = [
    "entry_of",
    "expected_files",
    "read_commit",
    "read_manifest",
    "read_teacher",
    "write_record",
]

_RESTORE = "restore the file from a copy of the cache; `distinit cache verify` lists all damage"


def write_record(record: Record, path: Path) -> None:
    """Write a record as readable JSON, atomically."""
    atomic_write_bytes(path, (record.model_dump_json(indent=2) + "\n").encode())


def read_manifest(layout: CacheLayout) -> CacheManifest:
    """Raises CacheCorruptError if it is missing, damaged or of another format version."""
    raw = _read_json(layout.manifest, "no target cache, or one without its manifest")
    version = raw.get("format_version")
    if raw.get("format") == "distinit-target-cache" and version != CACHE_FORMAT_VERSION:
        raise CacheCorruptError(
            f"{layout.manifest} has a format version that this program does not read",
            expected=CACHE_FORMAT_VERSION,
            found=version,
            remedy="install the version of distinit that wrote it",
        )
    manifest = _validate(CacheManifest, raw, layout.manifest)
    for teacher_id in manifest.teachers:
        layout.teacher(teacher_id)  # refuses ids that are no folder names
    return manifest


def read_teacher(layout: CacheLayout, teacher_id: str) -> TeacherRecord:
    """Raises CacheCorruptError if it is damaged or its fingerprint is not that of its identity."""
    path = layout.teacher_record(teacher_id)
    record = _validate(TeacherRecord, _read_json(path, "no record of a teacher"), path)
    if record.id != teacher_id or record.fingerprint != record.identity.fingerprint:
        raise CacheCorruptError(
            f"{path} does not match itself",
            expected=f"id {teacher_id}, fingerprint {record.identity.fingerprint}",
            found=f"id {record.id}, fingerprint {record.fingerprint}",
            remedy=_RESTORE,
        )
    return record


def read_commit(layout: CacheLayout, teacher: TeacherRecord, unit: int) -> UnitCommit:
    """The commit record of one unit.

    Raises CacheCorruptError if it is missing, damaged, of another unit or teacher, or lists
    other files than a commit of this unit does.
    """
    path = layout.commit(teacher.id, unit)
    commit = _validate(UnitCommit, _read_json(path, "a unit is not committed"), path)
    expected = (unit, teacher.fingerprint)
    if (commit.unit, commit.teacher_fingerprint) != expected:
        raise CacheCorruptError(
            f"{path} belongs to another unit or teacher",
            expected=expected,
            found=(commit.unit, commit.teacher_fingerprint),
            remedy=_RESTORE,
        )
    wanted = expected_files(layout, teacher, unit, commit.rows)
    for relative in commit.files:
        safe_join(layout.root, relative)
    if commit.files.keys() != wanted.keys():
        raise CacheCorruptError(
            f"{path} lists other files than a unit has",
            expected=sorted(wanted),
            found=sorted(commit.files),
            remedy=_RESTORE,
        )
    return commit


def expected_files(
    layout: CacheLayout, teacher: TeacherRecord, unit: int, rows: int
) -> dict[str, Path]:
    """Files of one unit of one teacher: relative path -> path. Without rows there is no shard."""
    paths = [layout.frames(unit), layout.confidence(teacher.id, unit)]
    if rows:
        specs = array_specs(teacher.encoding, teacher.identity.classes)
        paths += [layout.shard(teacher.id, spec.name, unit) for spec in specs]
    return {layout.relative(path): path for path in paths}


def entry_of(path: Path) -> FileEntry:
    """Size and sha256 of a file on disk."""
    return FileEntry(size=path.stat().st_size, sha256=sha256_file(path))


def _read_json(path: Path, missing: str) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CacheCorruptError(f"{missing}: {path} does not exist", remedy=_RESTORE) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CacheCorruptError(
            f"cannot read {path}", expected="JSON", found=str(error), remedy=_RESTORE
        ) from error
    if not isinstance(raw, dict):
        raise CacheCorruptError(
            f"cannot read {path}",
            expected="a JSON object",
            found=type(raw).__name__,
            remedy=_RESTORE,
        )
    return raw


def _validate[R: Record](kind: type[R], raw: dict[str, Any], path: Path) -> R:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise CacheCorruptError(
            f"{path} is not a valid {kind.__name__}",
            expected=first["msg"],
            found=f"{'.'.join(map(str, first['loc']))} = {str(first['input'])[:80]}",
            remedy=_RESTORE,
        ) from error
