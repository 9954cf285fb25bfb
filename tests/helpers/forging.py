"""Changes a cache as an attacker would who makes every record and checksum match again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distinit.pipeline.cache.confidence import Confidence, confidence_of
from distinit.pipeline.cache.digest import unit_content_sha256
from distinit.pipeline.cache.encoding import array_specs, decode
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import read_commit, read_manifest, read_teacher
from distinit.pipeline.cache.shard_rows import ShardRows, encode_shard
from distinit.pipeline.cache.tables import column, write_table
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.records import file_entry, write_record
from distinit.schemas.teacher import TeacherRecord


@dataclass
class ForgedUnit:
    """The tables of a unit, and the arrays of one teacher: name -> [capacity, width]."""

    record: TeacherRecord
    frames: pa.Table
    confidence: pa.Table
    arrays: dict[str, np.ndarray]

    @property
    def used_rows(self) -> np.ndarray:
        """Used rows, 0-based within the unit."""
        capacity = len(next(iter(self.arrays.values())))
        return column(self.frames, "row") % capacity

    def set_frames(self, **columns: np.ndarray) -> None:
        self.frames = _with_columns(self.frames, columns)

    def set_confidence(self, **columns: np.ndarray) -> None:
        self.confidence = _with_columns(self.confidence, columns)

    def recompute_confidence(self) -> None:
        """Make the confidence follow from the stored targets."""
        stored = {name: values[self.used_rows] for name, values in self.arrays.items()}
        found = confidence_of(decode(stored, self.record.encoding, self.record.identity.classes))
        self.set_confidence(**{f.name: getattr(found, f.name) for f in fields(Confidence)})


def _with_columns(table: pa.Table, columns: dict[str, np.ndarray]) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.names.index(name)
        kind = table.schema.field(name)
        table = table.set_column(place, kind, pa.array(values, kind.type))
    return table


def forge(root: Path, teacher: str, unit: int, change: Callable[[ForgedUnit], None]) -> None:
    """Let ``change`` edit a unit of one teacher, then write it and all that depends on it."""
    layout = CacheLayout(root)
    capacity = read_manifest(layout).row_space.capacity
    forged = _read(layout, teacher, unit, capacity)
    change(forged)
    for spec in array_specs(forged.record.encoding, forged.record.identity.classes):
        shard = encode_shard(spec, forged.arrays[spec.name], int(forged.used_rows[-1]) + 1)
        layout.shard(teacher, spec.name, unit).write_bytes(shard)
    write_table(forged.frames, layout.frames(unit))
    write_table(forged.confidence, layout.confidence(teacher, unit))
    for name in read_manifest(layout).teachers:
        _commit_again(layout, name, unit, capacity)
    seal_again(root)


def _read(layout: CacheLayout, teacher: str, unit: int, capacity: int) -> ForgedUnit:
    record = read_teacher(layout, teacher)
    arrays = {}
    for spec in array_specs(record.encoding, record.identity.classes):
        data = layout.shard(teacher, spec.name, unit).read_bytes()
        rows = ShardRows(memoryview(data), spec, capacity)
        arrays[spec.name] = rows[np.arange(capacity)].copy()
    tables = [pq.read_table(p) for p in (layout.frames(unit), layout.confidence(teacher, unit))]
    return ForgedUnit(record, tables[0], tables[1], arrays)


def _commit_again(layout: CacheLayout, teacher: str, unit: int, capacity: int) -> None:
    found = _read(layout, teacher, unit, capacity)
    commit = read_commit(layout, found.record, unit)
    content = unit_content_sha256(found.frames, found.confidence, found.arrays, found.used_rows)
    entries = {name: file_entry(layout.root / name) for name in commit.files}
    changed = commit.model_copy(update={"content_sha256": content, "files": entries})
    write_record(changed.resealed(), layout.commit(teacher, unit))


def seal_again(root: Path) -> None:
    """Write the manifest, the cards and the checksums from the commit records."""
    layout = CacheLayout(root)
    manifest = read_manifest(layout)
    write_record(
        manifest.model_copy(update={"complete": False, "content_digest": ""}), layout.manifest
    )
    with CacheWriter.create_or_open(
        root, videos=[], sampling=manifest.sampling, teachers={}
    ) as writer:
        assert writer.finalise().complete
