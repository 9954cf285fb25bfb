"""Reads the shards of a cache elsewhere: parts of them, or whole ones that are kept for a while.

Parts are right for looking at some videos: a chunk is checked by its crc32c. Training touches every
shard soon, so it receives whole ones, which are checked by their sha256 and kept in a folder of
limited size; the least recently used are removed.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from distinit.pipeline.cache.arrays import INNER_ROWS, shard_bytes
from distinit.pipeline.cache.encoding import ArraySpec
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.shard_rows import CRC_BYTES
from distinit.pipeline.cache.shards import ShardReader
from distinit.pipeline.open_files import files_at_once
from distinit.pipeline.storage import open_inside, storage_errors
from distinit.pipeline.transport.receive import Expected, receive_file, retried
from distinit.pipeline.transport.remote import NoRangesError
from distinit.pipeline.transport.stores import Store, open_store
from distinit.schemas.manifest import FileEntry
from distinit.schemas.teacher import TeacherRecord

__all__ = ["RemoteShards", "stored_bytes"]

_DEFAULT_LIMIT_BYTES = 20 << 30  # if a server does not send parts of files
_MEMORY_BYTES = 64 << 20  # of chunks that were read as parts
_RUN_BYTES = 8 << 20  # most bytes of one request
_REMEDY = "run the same command again; if that does not help, ask the sender of the cache"


class RemoteShards:
    """The shards of the cache at ``address``, whose other files are in the folder ``layout``.

    ``limit_bytes``: size of all whole shards that are kept; None: only parts are read. Picklable.
    """

    def __init__(self, address: str, layout: CacheLayout, limit_bytes: int | None) -> None:
        self.address, self.layout = address, layout
        self.limit_bytes = limit_bytes
        self._prepare()

    def _prepare(self) -> None:
        self.store: Store = open_store(self.address)
        self._has_ranges: bool | None = None
        self._memory: OrderedDict[tuple[Path, int], np.ndarray] = OrderedDict()
        self._memory_bytes = 0
        self._lock = threading.Lock()

    def open_shard(
        self, record: TeacherRecord, spec: ArraySpec, unit: int, capacity: int
    ) -> ShardReader:
        """A reader of one shard. Raises CacheCorruptError, TransferError, StorageError."""
        path = self.layout.shard(record.id, spec.name, unit)
        name = self.layout.relative(path)
        entry = read_commit(self.layout, record, unit).files[name]
        expected = Expected(name, entry.sha256, entry.size, entry.size)
        kind = RangeReader if self._reads_ranges(expected) else WholeReader
        return kind(self, expected, record.id, spec, unit, capacity)

    def _reads_ranges(self, expected: Expected) -> bool:
        if self.limit_bytes is not None:
            return False
        if self._has_ranges is None:
            try:
                self.read_range(expected.name, 0, 1)
                self._has_ranges = True
            except NoRangesError:
                self._has_ranges = False
                self.limit_bytes = _DEFAULT_LIMIT_BYTES
        return self._has_ranges

    def read_range(self, name: str, offset: int, size_bytes: int) -> bytes:
        """A part of a shard. Raises TransferError, NoRangesError."""
        return retried(self.store, name, lambda: self.store.read_range(name, offset, size_bytes))

    def most_open(self, spec: ArraySpec, capacity: int) -> int:
        """How many shards of an array may be open: an open file takes space until it is closed."""
        if self.limit_bytes is None:
            return files_at_once()
        fitting = self.limit_bytes // (2 * shard_bytes(spec, capacity))
        return max(1, min(files_at_once(), fitting))

    def hold(self, expected: Expected) -> int:
        """A descriptor of a whole shard, which is received if it is not there.

        Raises TransferError, StorageError, and OSError as ``open_inside``.
        """
        path = self.layout.root / expected.name
        while True:
            with self._folder_lock():
                try:
                    descriptor = open_inside(self.layout.root, path)
                except FileNotFoundError:
                    self._evict(expected.limit_bytes)
                else:
                    now_ns = time.time_ns()
                    os.utime(descriptor, ns=(now_ns, now_ns))
                    return descriptor
            receive_file(
                self.store,
                expected,
                self.layout.root,
                on_bytes=lambda _: None,
                stopping=threading.Event(),
            )

    @contextmanager
    def _folder_lock(self) -> Iterator[None]:
        with storage_errors(self.layout.root), self.layout.lock.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _evict(self, needed_bytes: int) -> None:
        """Remove the least recently used shards until ``needed_bytes`` more fit."""
        limit_bytes = self.limit_bytes or 0
        found = [(p, p.stat()) for p in self.layout.root.glob("teachers/*/*/c/*/*")]
        total_bytes = sum(status.st_size for _, status in found)
        for path, status in sorted(found, key=lambda item: item[1].st_mtime_ns):
            if total_bytes + needed_bytes <= limit_bytes:
                return
            path.unlink(missing_ok=True)
            total_bytes -= status.st_size

    def remember(self, path: Path, chunk: int, values_RW: np.ndarray) -> None:
        """Keep a chunk in memory."""
        with self._lock:
            self._memory[path, chunk] = values_RW
            self._memory_bytes += values_RW.nbytes
            while self._memory_bytes > _MEMORY_BYTES:
                self._memory_bytes -= self._memory.popitem(last=False)[1].nbytes

    def recall(self, path: Path, chunk: int) -> np.ndarray | None:
        """A chunk that was kept in memory."""
        with self._lock:
            found = self._memory.get((path, chunk))
            if found is not None:
                self._memory.move_to_end((path, chunk))
            return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("address", "layout", "limit_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()


class WholeReader(ShardReader):
    """Reads a shard that is received as a whole, and again if it was removed meanwhile."""

    remedy = _REMEDY

    def __init__(
        self,
        shards: RemoteShards,
        expected: Expected,
        teacher_id: str,
        spec: ArraySpec,
        unit: int,
        capacity: int,
    ) -> None:
        self._shards, self._expected = shards, expected
        super().__init__(shards.layout, teacher_id, spec, unit, capacity)

    def _open_file(self) -> int:
        return self._shards.hold(self._expected)


class RangeReader(WholeReader):
    """Reads chunks of a shard without receiving the rest of it."""

    _run: tuple[int, bytes] = (0, b"")

    def _open(self) -> int:
        if not len(self.chunk_offsets):
            self.chunk_offsets = self._read_index(self._expected.limit_bytes)
            self._verified = np.zeros(self._chunks, np.bool_)  # chunks are verified by read_chunk
        return -1

    def _pread(self, size: int, offset: int) -> bytes:
        start, data = self._run
        if start <= offset and offset + size <= start + len(data):
            return data[offset - start : offset - start + size]
        return self._shards.read_range(self._expected.name, offset, size)

    def read_into(self, rows_N: np.ndarray, out_NW: np.ndarray, where_N: np.ndarray) -> None:
        """See ShardReader. Neighbouring chunks are read by one request."""
        self._open()
        chunk_N, inside_N = np.divmod(rows_N, INNER_ROWS)
        self._offsets(rows_N, chunk_N)  # refuses rows that were never written
        values: dict[int, np.ndarray] = {}
        wanted = np.unique(chunk_N).tolist()
        for chunk in wanted:
            if (found := self._shards.recall(self.path, chunk)) is not None:
                values[chunk] = found
        for run in self._runs([chunk for chunk in wanted if chunk not in values]):
            first, last = (int(self.chunk_offsets[chunk]) for chunk in (run[0], run[-1]))
            self._run = first, self._pread(last - first + self._chunk_bytes, first)
            for chunk in run:
                if (read := self.read_chunk(chunk)) is not None:
                    values[chunk] = read
                    self._shards.remember(self.path, chunk, read)
            self._run = 0, b""
        for chunk, values_RW in values.items():
            in_chunk_N = chunk_N == chunk
            out_NW[where_N[in_chunk_N]] = values_RW[inside_N[in_chunk_N]]

    @property
    def _chunk_bytes(self) -> int:
        return INNER_ROWS * self._spec.row_bytes + CRC_BYTES

    def _runs(self, chunks: list[int]) -> Iterator[list[int]]:
        """Chunks that lie one after another in the file, not too many at a time."""
        run: list[int] = []
        for chunk in chunks:
            follows = run and (
                self.chunk_offsets[chunk] == self.chunk_offsets[run[-1]] + self._chunk_bytes
            )
            if run and not (follows and (len(run) + 1) * self._chunk_bytes <= _RUN_BYTES):
                yield run
                run = []
            run.append(chunk)
        if run:
            yield run


def stored_bytes(layout: CacheLayout, records: Mapping[str, TeacherRecord]) -> int:
    """Size of all shards of ``logits``, as the commit records state it."""
    entries: list[FileEntry] = []
    for name, record in records.items():
        for unit in layout.committed_units(name):
            files = read_commit(layout, record, unit).files
            shard = layout.relative(layout.shard(name, "logits", unit))
            entries += [files[shard]] if shard in files else []
    return sum(entry.size for entry in entries)
