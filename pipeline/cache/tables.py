"""Writes and reads the Parquet files of a cache; their schema and size are checked."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distinit.pipeline.cache.parquet_bounds import MAX_TABLE_BYTES, check_pages, plain_texts
from distinit.pipeline.cache.plan import PlannedRows, PlannedVideo, UnitPlan, groups_of_entries
from distinit.pipeline.storage import atomic_path, open_regular, read_bounded
from distinit.schemas.corpus import ProbeSummary, VideoFile
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import MAX_CAPACITY, MAX_UNITS, VideoOutcome
from distinit.schemas.tables import PLAN_SCHEMA, VIDEOS_SCHEMA
from distinit.schemas.wording import shown

__all__ = [
    "column",
    "parse_table",
    "plan_of",
    "plan_table",
    "read_batches",
    "read_plan",
    "read_planned_ids",
    "read_table",
    "videos_table",
    "write_table",
]

_BATCH_ROWS = 2048
_THRIFT_LIMIT = 1 << 20  # bytes per string, and entries per list, of a footer
_COUNTS = ("first_row", "reserved_rows")
_COUNT = re.compile(rb"[0-9]{1,18}")
_RESTORE = "run `distinit cache verify`, then restore the file from a copy, or extract again"


def write_table(table: pa.Table, path: Path) -> None:
    """Write ``table`` atomically.

    Row numbers, frame indices and times increase in even steps, and floats have similar exponents.
    Each column uses the Parquet encoding that suits it (22 instead of 37 bytes per frame).
    """
    kinds = {field.name: field.type for field in table.schema}
    encodings = {n: "DELTA_BINARY_PACKED" for n, kind in kinds.items() if pa.types.is_int64(kind)}
    encodings |= {n: "BYTE_STREAM_SPLIT" for n, kind in kinds.items() if pa.types.is_floating(kind)}
    repeating = [n for n, k in kinds.items() if pa.types.is_string(k) or pa.types.is_int32(k)]
    # pyarrow takes paths such as ~a and a:b for others, and leaves a file that it has opened itself
    # open after an error.
    with atomic_path(path) as partial, partial.open("wb") as file:
        pq.write_table(
            table,
            file,
            compression="zstd",
            compression_level=19,
            use_dictionary=repeating,
            column_encoding=encodings,
            # Tables are read as a whole, and there are many small ones: no statistics, no second
            # schema.
            write_statistics=False,
            store_schema=bool(table.schema.metadata),
        )


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a whole table.

    Raises CacheCorruptError if the file is missing or unreadable, has another schema, or would take
    more memory than a valid table (see parquet_bounds).
    """
    with _as_corrupt(path):
        data = read_bounded(path, MAX_TABLE_BYTES)
    return parse_table(data, schema, path)


def parse_table(data: bytes, schema: pa.Schema, path: Path) -> pa.Table:
    """As ``read_table``, from the bytes of the file."""
    with _as_corrupt(path), _open_table(io.BytesIO(data), schema, path) as file:
        coded = file.read(use_threads=False)
        return plain_texts(coded, schema, len(data))


def read_batches(path: Path, schema: pa.Schema, names: Sequence[str]) -> Generator[pa.RecordBatch]:
    """The columns ``names`` of a table, a few rows at a time. Raises as ``read_table``."""
    batch_schema = pa.schema([schema.field(name) for name in names])
    try:
        with _as_corrupt(path), os.fdopen(open_regular(path), "rb") as source:
            size = os.fstat(source.fileno()).st_size
            if size > MAX_TABLE_BYTES:
                raise ValueError(f"a file of {size} bytes")
            with _open_table(source, schema, path) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=list(names), use_threads=False):
                    table = plain_texts(pa.Table.from_batches([batch]), batch_schema, size)
                    yield from table.combine_chunks().to_batches()
    finally:
        pa.default_memory_pool().release_unused()  # Arrow would keep about 20 MB otherwise


@contextmanager
def _as_corrupt(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, OverflowError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CacheCorruptError(
            f"cannot read the table {path}",
            expected="a Parquet file of the cache format",
            found=str(reason).splitlines()[0][:200],
            remedy=_RESTORE,
        ) from error


@contextmanager
def _open_table(source: BinaryIO, schema: pa.Schema, path: Path) -> Iterator[pq.ParquetFile]:
    """Open a table and check its sizes. Strings are read as dictionaries, see ``plain_texts``."""
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with pq.ParquetFile(
        source,
        read_dictionary=texts,
        thrift_string_size_limit=_THRIFT_LIMIT,
        thrift_container_size_limit=_THRIFT_LIMIT,
    ) as file:
        found = file.schema.to_arrow_schema()
        if not found.equals(schema, check_metadata=False):
            raise CacheCorruptError(
                f"the columns of the table {path} are not those of the format",
                expected=", ".join(schema.names),
                found=", ".join(found.names)[:400],
                remedy=_RESTORE,
            )
        check_pages(source, file.metadata, schema)
        yield file


def column(table: pa.Table, name: str) -> np.ndarray:
    """One numeric column as an array [N]."""
    values: np.ndarray = table.column(name).to_numpy()
    return values


def plan_table(plan: UnitPlan) -> pa.Table:
    """``plan.parquet``; capacity and base_videos are stored in the schema metadata."""
    rows = [_row_of(v, group.first_unit) for group in plan.groups for v in group.videos]
    metadata = {"capacity": str(plan.capacity), "base_videos": str(plan.base_videos)}
    schema = PLAN_SCHEMA.with_metadata(metadata)
    return pa.Table.from_pylist(rows, schema=schema)


def read_plan(path: Path) -> UnitPlan:
    """Read ``plan.parquet``. Raises CacheCorruptError if it is damaged."""
    return plan_of(read_table(path, PLAN_SCHEMA), path)


def plan_of(table: pa.Table, path: Path) -> UnitPlan:
    """The plan stored in ``table``, which was read from ``path``. Raises CacheCorruptError."""
    capacity, base = _plan_sizes(table.schema, path)
    for batch in table.to_batches():
        _check_entries(batch, capacity, path)
    first_units: Sequence[int] = table.column("task").to_pylist()
    entries = [_entry_of(row) for row in table.to_pylist()]
    return UnitPlan(capacity, groups_of_entries(entries, first_units, capacity), base)


def _row_of(entry: PlannedRows, first_unit: int) -> dict[str, Any]:
    file, probe = entry.video.file, entry.video.probe
    return {
        "video_id": file.video_id,
        "path": file.path,
        "digest": file.digest,
        "size_bytes": file.size_bytes,
        "mtime_ns": file.mtime_ns,
        "probed_frames": probe.frame_count,
        "probed_fps": probe.fps,
        "first_row": entry.first_row,
        "reserved_rows": entry.reserved_rows,
        "task": first_unit,
        "in_corpus": entry.in_corpus,
    }


def _entry_of(row: Mapping[str, Any]) -> PlannedRows:
    names = ("video_id", "path", "digest", "size_bytes", "mtime_ns")
    file = VideoFile(**{name: row[name] for name in names})
    probe = ProbeSummary(row["probed_frames"], row["probed_fps"])
    return PlannedRows(
        PlannedVideo(file, probe, row["reserved_rows"]), row["first_row"], row["in_corpus"]
    )


def read_planned_ids(path: Path) -> tuple[np.ndarray, int, int]:
    """Ids of the planned videos (bytes [V], sorted), capacity and number of units of the plan.

    Creates no Python object per video. Raises CacheCorruptError if the plan cannot be read.
    """
    with (
        _as_corrupt(path),
        os.fdopen(open_regular(path), "rb") as source,
        _open_table(source, PLAN_SCHEMA, path) as file,
    ):
        capacity, _ = _plan_sizes(file.schema_arrow, path)
    parts, last_row = [np.zeros(0, "S1")], -1
    for batch in read_batches(path, PLAN_SCHEMA, ("video_id", *_COUNTS)):
        _check_entries(batch, capacity, path)
        parts.append(np.array([text.encode() for text in batch["video_id"].to_pylist()], np.bytes_))
        ends_N = batch["first_row"].to_numpy() + np.maximum(batch["reserved_rows"].to_numpy(), 1)
        last_row = max(last_row, int(ends_N.max()) - 1)
    return np.unique(np.concatenate(parts)), capacity, last_row // capacity + 1


def _check_entries(batch: pa.RecordBatch, capacity: int, path: Path) -> None:
    """Raise CacheCorruptError for numbers out of range, whose sums could overflow."""
    largest = {"probed_fps": 1e9, "task": MAX_UNITS, "size_bytes": 1 << 62}
    for name in (*_COUNTS, "probed_frames", "probed_fps", "task", "size_bytes"):
        if name not in batch.schema.names or not batch.num_rows:
            continue
        values_N = batch[name].to_numpy()
        if not ((values_N >= 0) & (values_N <= largest.get(name, capacity * MAX_UNITS))).all():
            raise CacheCorruptError(
                f"the plan {path} contains a number out of range",
                expected=f"{name} from 0 to {largest.get(name, capacity * MAX_UNITS):g}",
                found=f"{values_N.min()} .. {values_N.max()}",
                remedy=_RESTORE,
            )


def _plan_sizes(schema: pa.Schema, path: Path) -> tuple[int, int]:
    """(capacity, base_videos)."""
    metadata = schema.metadata or {}
    sizes = [metadata.get(name, b"") for name in (b"capacity", b"base_videos")]
    if all(_COUNT.fullmatch(size) for size in sizes):
        capacity, base = map(int, sizes)
        if capacity % 64 == 0 and 64 <= capacity <= MAX_CAPACITY:
            return capacity, base
    raise CacheCorruptError(
        f"the plan {path} has no valid unit size",
        expected="capacity (a multiple of 64) and base_videos in its schema metadata",
        found=shown(b", ".join(sizes).decode("ascii", "replace")),
        remedy=_RESTORE,
    )


def videos_table(plan: UnitPlan, outcomes: dict[str, VideoOutcome]) -> pa.Table:
    """``videos.parquet``: every planned video with its outcome, ordered by video_id."""
    rows = []
    for video_id, entry in sorted(plan.latest.items()):
        outcome = outcomes.get(video_id)
        if outcome is None or outcome.status == "spilled":
            continue  # its outcome is not known yet
        rows.append(
            {
                **outcome.model_dump(mode="python"),
                "path": entry.path,
                "digest": entry.digest,
                "in_corpus": entry.in_corpus,
            }
        )
    return pa.Table.from_pylist(rows, schema=VIDEOS_SCHEMA)
