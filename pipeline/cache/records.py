"""Reads the JSON records of a cache and checks that they belong together."""

from __future__ import annotations

from pathlib import Path

from distinit.pipeline.cache.encoding import array_specs, check_encoding
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.output_paths import kind_of_data
from distinit.pipeline.records import read_record
from distinit.pipeline.storage import safe_join
from distinit.schemas.errors import CacheCorruptError, CacheError, ConfigError
from distinit.schemas.manifest import CacheManifest, UnitCommit
from distinit.schemas.teacher import TeacherRecord

__all__ = [
    "checked_teacher",
    "expected_files",
    "read_commit",
    "read_manifest",
    "read_teacher",
    "refuse_no_cache",
]

_RESTORE = "restore the file from a copy of the cache; `distinit cache verify` lists all damage"
_NAME_A_CACHE = "name the folder that `distinit extract` wrote with --cache"
_RESTORE_TEACHER = (
    "rerun the same `distinit extract`, which writes the file again, or restore it from a copy of "
    "the cache"
)
_RESTORE_COMMIT = (
    "rerun the same `distinit extract`, which extracts this unit again, or restore the file from "
    "a copy of the cache; `distinit cache verify` lists all damage"
)


def read_manifest(layout: CacheLayout) -> CacheManifest:
    """The manifest of a cache.

    Raises CacheCorruptError if it is missing, damaged or of another format version; CacheError if
    the folder does not exist or is not a cache.
    """
    is_cache = (layout.root / "teachers").is_dir()
    missing = "that folder does not exist"
    if kind_of_data(layout.root) == "frame store":
        missing = "this is a frame store, not a target cache"
    elif layout.root.is_dir():
        missing = "not a target cache, or its manifest is missing"
    manifest = read_record(
        layout.manifest,
        CacheManifest,
        error=CacheCorruptError if is_cache or layout.manifest.exists() else CacheError,
        remedy=_RESTORE if is_cache else _NAME_A_CACHE,
        missing=missing,
        named_input=not is_cache,
    )
    for teacher_id in manifest.teachers:
        layout.teacher(teacher_id)  # refuses ids that are not folder names
    return manifest


def refuse_no_cache(root: Path) -> None:
    """Raise CacheError, as ``read_manifest``, unless ``root`` has a manifest, even a bad one."""
    layout = CacheLayout(root)
    if not layout.manifest.is_file():
        read_manifest(layout)


def read_teacher(layout: CacheLayout, teacher_id: str) -> TeacherRecord:
    """The record of one teacher.

    Raises CacheCorruptError if it is damaged or its fingerprint is not that of its identity.
    """
    path = layout.teacher_record(teacher_id)
    record = read_record(
        path,
        TeacherRecord,
        error=CacheCorruptError,
        remedy=_RESTORE_TEACHER,
        missing="the record of a teacher is missing",
    )
    return checked_teacher(record, teacher_id, path)


def checked_teacher(record: TeacherRecord, teacher_id: str, path: Path | str) -> TeacherRecord:
    """``record``, which was read from ``path``. Raises CacheCorruptError as ``read_teacher``."""
    if record.id != teacher_id or record.fingerprint != record.identity.fingerprint:
        raise CacheCorruptError(
            f"{path} is inconsistent",
            expected=f"id {teacher_id}, fingerprint {record.identity.fingerprint}",
            found=f"id {record.id}, fingerprint {record.fingerprint}",
            remedy=_RESTORE,
        )
    try:
        check_encoding(record.identity, record.encoding)
    except ConfigError as error:
        raise CacheCorruptError(
            f"{path} has an encoding that its teacher does not support: {error.problem}",
            expected=error.expected,
            found=error.found,
            remedy=_RESTORE,
        ) from error
    return record


def read_commit(layout: CacheLayout, teacher: TeacherRecord, unit: int) -> UnitCommit:
    """The commit record of one unit.

    Raises CacheCorruptError if it is missing, damaged, changed after it was written, of another
    unit or teacher, or if it does not list exactly the files of this unit.
    """
    path = layout.commit(teacher.id, unit)
    commit = read_record(
        path,
        UnitCommit,
        error=CacheCorruptError,
        remedy=_RESTORE_COMMIT,
        missing="a unit is not committed",
    )
    expected = (unit, teacher.fingerprint)
    if (commit.unit, commit.teacher_fingerprint) != expected:
        raise CacheCorruptError(
            f"{path} belongs to another unit or teacher",
            expected=expected,
            found=(commit.unit, commit.teacher_fingerprint),
            remedy=_RESTORE,
        )
    unit_files = expected_files(layout, teacher, unit, commit.rows)
    for relative in commit.files:
        safe_join(layout.root, relative)
    if commit.files.keys() != unit_files.keys():
        raise CacheCorruptError(
            f"{path} does not list the files of its unit",
            expected=sorted(unit_files),
            found=sorted(commit.files),
            remedy=_RESTORE,
        )
    if commit.seal() != commit.record_sha256:
        raise CacheCorruptError(
            f"{path} was changed after it was written",
            expected=f"record_sha256 {commit.seal()}",
            found=commit.record_sha256,
            remedy=_RESTORE_COMMIT,
        )
    return commit


def expected_files(
    layout: CacheLayout, teacher: TeacherRecord, unit: int, rows: int
) -> dict[str, Path]:
    """Files of one unit of one teacher: relative path -> path. Without rows there are no shards."""
    paths = [layout.frames(unit), layout.confidence(teacher.id, unit)]
    if rows:
        specs = array_specs(teacher.encoding, teacher.identity.classes)
        paths += [layout.shard(teacher.id, spec.name, unit) for spec in specs]
    return {layout.relative(path): path for path in paths}
