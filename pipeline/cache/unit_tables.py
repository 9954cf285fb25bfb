"""Reads the tables of one unit: checks their bytes against the commit, and their values."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distinit.pipeline.cache.layout import DAMAGE_REMEDY, CacheLayout
from distinit.pipeline.cache.tables import column, parse_table
from distinit.pipeline.storage import read_inside
from distinit.pipeline.units import unit_name
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import UnitCommit
from distinit.schemas.tables import CONFIDENCE_SCHEMA, FEATURE_ROWS_SCHEMA, FRAMES_SCHEMA
from distinit.schemas.teacher import TeacherRecord

__all__ = [
    "answered_rows",
    "check_confidence",
    "contradiction",
    "read_confidence",
    "read_frames",
]

_SLACK = 1e-3  # rounding may raise the entropy of a uniform distribution above ln(classes)
_MAX_FRAMES = 1 << 31  # the index holds them in 32 bits


def read_frames(layout: CacheLayout, commit: UnitCommit, capacity: int) -> pa.Table:
    """The frames table of a unit: which frame each row holds. Raises CacheCorruptError."""
    path = layout.frames(commit.unit)
    table = _read_committed(layout, path, commit, FRAMES_SCHEMA)
    _check_rows(table, commit.unit, capacity, path)
    index_N = column(table, "frame_index")
    _check_range(index_N, "frame_index", 0, _MAX_FRAMES - 1, path)
    return table


def read_confidence(
    layout: CacheLayout, record: TeacherRecord, commit: UnitCommit, capacity: int
) -> pa.Table:
    """The confidence table of a unit; NaN in rows for which the teacher has no output.

    Raises CacheCorruptError.
    """
    path = layout.confidence(record.id, commit.unit)
    is_features = record.identity.target == "features"
    schema = FEATURE_ROWS_SCHEMA if is_features else CONFIDENCE_SCHEMA
    table = _read_committed(layout, path, commit, schema)
    _check_rows(table, commit.unit, capacity, path)
    if not is_features:
        answered = table
        if commit.unanswered or commit.refused:
            answered = table.filter(answered_rows(read_frames(layout, commit, capacity), commit))
        check_confidence(answered, record.identity.classes, path)
    return table


def answered_rows(frames: pa.Table, commit: UnitCommit) -> pa.ChunkedArray:
    """bool [N]: rows of videos for which the teacher has outputs; the others are NaN."""
    without = pa.array([*commit.unanswered, *commit.refused], pa.string())
    return pc.invert(pc.is_in(frames.column("video_id"), without))


def check_confidence(table: pa.Table, classes: int, path: Path) -> None:
    """Raise CacheCorruptError for NaN and for values that are impossible with ``classes``."""
    highest = math.log(max(classes, 2)) + _SLACK
    _check_range(column(table, "entropy_nats"), "entropy_nats", 0.0, highest, path)
    _check_range(column(table, "top1_class"), "top1_class", 0, classes - 1, path)
    for name in ("top1_probability", "margin"):
        _check_range(column(table, name), name, 0.0, 1.0 + _SLACK, path)
    largest = float(np.finfo(np.float32).max)
    _check_range(column(table, "log_z"), "log_z", -largest, largest, path)


def _read_committed(
    layout: CacheLayout, path: Path, commit: UnitCommit, schema: pa.Schema
) -> pa.Table:
    entry = commit.files[layout.relative(path)]
    data = _read_inside(layout.root, path, entry.size)
    found = hashlib.sha256(data).hexdigest()
    if (len(data), found) != (entry.size, entry.sha256):
        expected = f"{entry.size} bytes, sha256 {entry.sha256}"
        raise contradiction(path, expected, f"{len(data)} bytes, sha256 {found}")
    table = parse_table(data, schema, path)
    if table.num_rows != commit.rows:
        raise contradiction(path, f"{commit.rows} rows", f"{table.num_rows} rows")
    return table


def _read_inside(root: Path, path: Path, size: int) -> bytes:
    try:
        return read_inside(root, path, size)
    except OSError as error:
        found = error.strerror
        raise contradiction(path, f"{size} bytes, as committed", found) from error


def _check_rows(table: pa.Table, unit: int, capacity: int, path: Path) -> None:
    row_N = column(table, "row")
    inside = (row_N // capacity == unit).all() and (np.diff(row_N) > 0).all()
    if not inside:
        raise contradiction(path, f"ascending rows of {unit_name(unit)}", "other rows")


def _check_range(
    values_N: np.ndarray, name: str, smallest: float, largest: float, path: Path
) -> None:
    if not ((values_N >= smallest) & (values_N <= largest)).all():
        raise CacheCorruptError(
            f"{path} holds impossible values of {name}",
            expected=f"{smallest:.6g} .. {largest:.6g}",
            found=f"{values_N.min()} .. {values_N.max()}",
            remedy=DAMAGE_REMEDY,
        )


def contradiction(path: Path, expected: str, found: str | None) -> CacheCorruptError:
    """The error for a file of a unit that does not match the records of the cache."""
    return CacheCorruptError(
        f"{path} contradicts the records of the cache",
        expected=expected,
        found=found,
        remedy=DAMAGE_REMEDY,
    )
