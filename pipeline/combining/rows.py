"""Reads the rows of a video as they are stored: bits, ids and confidence, nothing decoded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from distinit.pipeline.cache.encoding import ArraySpec, array_specs
from distinit.pipeline.cache.shards import ShardReader
from distinit.pipeline.cache.tables import column
from distinit.pipeline.cache.target_rows import TargetRows
from distinit.pipeline.cache.unit import FrameRows
from distinit.pipeline.cache.unit_tables import contradiction, read_confidence, read_frames
from distinit.pipeline.combining.source import Source
from distinit.pipeline.storage import sha256_file
from distinit.schemas.manifest import UnitCommit
from distinit.schemas.tables import CONFIDENCE_SCHEMA

__all__ = ["RowReader", "equal_bits"]

_TABLES_KEPT = 16
_SHARDS_KEPT = 32
_CONFIDENCE = tuple(name for name in CONFIDENCE_SCHEMA.names if name != "row")


class RowReader:
    """The stored rows of one source. Keeps a few tables in memory and a few shards open.

    Tables are compared with the sha256 in their commit, and chunks of shards with their crc32c. If
    the source is not verified, shards are compared with their sha256 too, since the crc32c does not
    notice a shard that was replaced as a whole. Raises CacheCorruptError.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._capacity = source.state.plan.capacity
        self._tables: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._shards: OrderedDict[tuple[str, str, int], ShardReader] = OrderedDict()
        self._checked: set[Path] = set()

    def extent(self, video_id: str) -> tuple[int, int]:
        """(first row, number of rows) of a video; its rows are consecutive."""
        index = self.source.cache.index
        number = index.number_of(video_id)
        return int(index.first_row[number]), int(index.row_count[number])

    def frames(self, video_id: str, start: int, stop: int) -> FrameRows:
        """Which frames the rows ``start .. stop - 1`` of a video hold, counted within the video."""
        first, _ = self.extent(video_id)
        parts = [
            self._frames(unit, rows) for unit, rows in self._units(first + start, first + stop)
        ]
        table = pa.concat_tables(parts)
        names = ("frame_index", "pts", "perceptual_hash")
        time_base = table.column("time_base")[0].as_py()
        return FrameRows.of(video_id, time_base, *(column(table, name) for name in names))

    def targets(self, teacher_id: str, video_id: str, start: int, stop: int) -> TargetRows:
        """The stored targets and confidence of the same rows; without fidelity."""
        record, (first, _) = self.source.records[teacher_id], self.extent(video_id)
        specs = array_specs(record.encoding, record.identity.classes)
        arrays = {s.name: np.empty((stop - start, s.width), s.dtype) for s in specs}
        tables, done = [], 0
        for unit, rows in self._units(first + start, first + stop):
            inside_N = np.arange(rows.start, rows.stop) - unit * self._capacity
            where_N = np.arange(done, done + len(rows))
            for spec in specs:
                shard = self._shard(teacher_id, spec, unit)
                shard.read_into(inside_N, arrays[spec.name], where_N)
            tables.append(self._confidence(teacher_id, unit, rows))
            done += len(rows)
        if record.identity.target == "features":
            return TargetRows(arrays, {}, None)
        table = pa.concat_tables(tables)
        return TargetRows(arrays, {name: column(table, name) for name in _CONFIDENCE}, None)

    def _units(self, first: int, stop: int) -> Iterator[tuple[int, range]]:
        """Rows cut where units end."""
        while first < stop:
            unit = first // self._capacity
            end = min(stop, (unit + 1) * self._capacity)
            yield unit, range(first, end)
            first = end

    def _frames(self, unit: int, rows: range) -> pa.Table:
        def read() -> pa.Table:
            commit = next(iter(self.source.state.commits.values()))[unit]
            return read_frames(self.source.layout, commit, self._capacity)

        return _slice(self._table(("", unit), read), rows)

    def _confidence(self, teacher_id: str, unit: int, rows: range) -> pa.Table:
        def read() -> pa.Table:
            record = self.source.records[teacher_id]
            commit = self.source.state.commits[teacher_id][unit]
            return read_confidence(self.source.layout, record, commit, self._capacity)

        return _slice(self._table((teacher_id, unit), read), rows)

    def _table(self, key: tuple[str, int], read: Callable[[], pa.Table]) -> pa.Table:
        if key not in self._tables:
            self._tables[key] = read()
            if len(self._tables) > _TABLES_KEPT:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]

    def _shard(self, teacher_id: str, spec: ArraySpec, unit: int) -> ShardReader:
        key = (teacher_id, spec.name, unit)
        if key not in self._shards:
            reader = ShardReader(self.source.layout, teacher_id, spec, unit, self._capacity)
            self._check(reader.path, self.source.state.commits[teacher_id][unit])
            self._shards[key] = reader
            if len(self._shards) > _SHARDS_KEPT:
                self._shards.popitem(last=False)[1].release()
        self._shards.move_to_end(key)
        return self._shards[key]

    def _check(self, shard: Path, commit: UnitCommit) -> None:
        """Compare a shard of a source that is not verified with its commit, once."""
        if self.source.verified or shard in self._checked:
            return
        entry = commit.files[self.source.layout.relative(shard)]
        size_bytes = shard.stat().st_size
        if size_bytes != entry.size:  # not hashed: a sparse file may be huge
            raise contradiction(shard, f"{entry.size} bytes", f"{size_bytes} bytes")
        if (sha256 := sha256_file(shard)) != entry.sha256:
            raise contradiction(shard, f"sha256 {entry.sha256}", f"sha256 {sha256}")
        self._checked.add(shard)

    def close(self) -> None:
        """Close all files."""
        for shard in self._shards.values():
            shard.release()
        self._shards.clear()
        self._tables.clear()


def _slice(table: pa.Table, rows: range) -> pa.Table:
    """The consecutive ``rows`` of a table that is sorted by its column ``row``."""
    first = int(np.searchsorted(column(table, "row"), rows.start))
    return table.slice(first, len(rows))


def equal_bits(a: TargetRows, b: TargetRows) -> np.ndarray:
    """bool [N]: rows in which all stored values and all confidence columns have equal bits."""
    rows = len(next(iter(a.arrays.values())))
    equal_N = np.ones(rows, bool)
    for there, now in ((a.arrays, b.arrays), (a.confidence, b.confidence)):
        for name, values in there.items():
            raw, other = (
                np.ascontiguousarray(v).view(np.uint8).reshape(rows, -1)
                for v in (values, now[name])
            )
            equal_N &= (raw == other).all(axis=1)
    return equal_N
