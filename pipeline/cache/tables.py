"""The Parquet files of a cache: written whole, read with their schema checked."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distinit.pipeline.cache.plan import PlannedRows, UnitPlan, tasks_of_entries
from distinit.pipeline.storage import atomic_path
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.tables import PLAN_SCHEMA, VIDEOS_SCHEMA

__all__ = [
    "column",
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
_RESTORE = "run `distinit cache verify`, then restore the file from a copy or extract again"


def write_table(table: pa.Table, path: Path) -> None:
    """Write ``table`` atomically.

    Row numbers, frame indices and times step evenly, and floats share their exponents: each
    column has the Parquet encoding that makes use of it (22 bytes a frame instead of 37).
    """
    kinds = {field.name: field.type for field in table.schema}
    encodings = {n: "DELTA_BINARY_PACKED" for n, kind in kinds.items() if pa.types.is_int64(kind)}
    encodings |= {n: "BYTE_STREAM_SPLIT" for n, kind in kinds.items() if pa.types.is_floating(kind)}
    repeating = [n for n, k in kinds.items() if pa.types.is_string(k) or pa.types.is_int32(k)]
    with atomic_path(path) as partial:
        pq.write_table(
            table,
            partial,
            compression="zstd",
            compression_level=19,
            use_dictionary=repeating,
            column_encoding=encodings,
            # Tables are read whole, and there are many: neither statistics nor a second schema.
            write_statistics=False,
            store_schema=bool(table.schema.metadata),
        )


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a whole table.

    Raises CacheCorruptError if the file is missing, unreadable or of another schema.
    """
    with _open_table(path, schema) as file:
        return file.read(use_threads=False)


def read_batches(path: Path, schema: pa.Schema, names: Sequence[str]) -> Generator[pa.RecordBatch]:
    """Some columns of a table, some rows at a time. Raises CacheCorruptError as ``read_table``."""
    try:
        with _open_table(path, schema, memory_map=True) as file:
            yield from file.iter_batches(_BATCH_ROWS, columns=list(names), use_threads=False)
    finally:
        pa.default_memory_pool().release_unused()  # Arrow would keep some 20 MB for later


@contextmanager
def _open_table(
    path: Path, schema: pa.Schema, *, memory_map: bool = False
) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, memory_map=memory_map) as file:
            found = file.schema_arrow
            if found.equals(schema, check_metadata=False):
                yield file
                return
    except (OSError, ValueError, pa.ArrowException) as error:
        raise CacheCorruptError(
            f"cannot read the table {path}",
            expected="a Parquet file",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            remedy=_RESTORE,
        ) from error
    raise CacheCorruptError(
        f"the table {path} has other columns than the format says",
        expected=", ".join(schema.names),
        found=", ".join(found.names),
        remedy=_RESTORE,
    )


def column(table: pa.Table, name: str) -> np.ndarray:
    """One numeric column as an array [N]."""
    values: np.ndarray = table.column(name).to_numpy()
    return values


def plan_table(plan: UnitPlan) -> pa.Table:
    """``plan.parquet``; capacity and base size ride in the schema metadata."""
    rows = [
        {
            name: task.first_unit if name == "task" else getattr(video, name)
            for name in PLAN_SCHEMA.names
        }
        for task in plan.tasks
        for video in task.videos
    ]
    metadata = {"capacity": str(plan.capacity), "base_videos": str(plan.base_videos)}
    schema = PLAN_SCHEMA.with_metadata(metadata)
    return pa.Table.from_pylist(rows, schema=schema)


def read_plan(path: Path) -> UnitPlan:
    """Read ``plan.parquet``. Raises CacheCorruptError if it is damaged."""
    return plan_of(read_table(path, PLAN_SCHEMA), path)


def plan_of(table: pa.Table, path: Path) -> UnitPlan:
    """The plan in ``table``, which was read from ``path``. Raises CacheCorruptError."""
    capacity, base = _plan_sizes(table.schema, path)
    first_units: Sequence[int] = table.column("task").to_pylist()
    entries = [PlannedRows(**row) for row in table.drop_columns(["task"]).to_pylist()]
    return UnitPlan(capacity, tasks_of_entries(entries, first_units, capacity), base)


def read_planned_ids(path: Path) -> tuple[np.ndarray, int, int]:
    """Ids (bytes [V], sorted) of the planned videos, capacity and number of units of the plan.

    Without an object a video. Raises CacheCorruptError if the plan cannot be read.
    """
    with _open_table(path, PLAN_SCHEMA) as file:
        capacity, _ = _plan_sizes(file.schema_arrow, path)
    parts, last_row = [np.zeros(0, "S1")], -1
    for batch in read_batches(path, PLAN_SCHEMA, ("video_id", "first_row", "reserved_rows")):
        parts.append(np.array([text.encode() for text in batch["video_id"].to_pylist()], np.bytes_))
        ends_N = batch["first_row"].to_numpy() + np.maximum(batch["reserved_rows"].to_numpy(), 1)
        last_row = max(last_row, int(ends_N.max()) - 1)
    return np.unique(np.concatenate(parts)), capacity, last_row // capacity + 1


def _plan_sizes(schema: pa.Schema, path: Path) -> tuple[int, int]:
    """(capacity, base_videos)."""
    metadata = schema.metadata or {}
    try:
        return int(metadata[b"capacity"]), int(metadata[b"base_videos"])
    except (KeyError, ValueError) as error:
        raise CacheCorruptError(
            f"the plan {path} does not say how long a unit is",
            expected="capacity and base_videos in its schema metadata",
            remedy=_RESTORE,
        ) from error


def videos_table(plan: UnitPlan, outcomes: dict[str, VideoOutcome]) -> pa.Table:
    """``videos.parquet``: every planned video with its outcome, in order of video_id."""
    rows = []
    for video_id, entry in sorted(plan.latest.items()):
        outcome = outcomes.get(video_id)
        if outcome is None or outcome.status == "spilled":
            continue  # not decided yet
        rows.append(
            {
                **outcome.model_dump(mode="python"),
                "path": entry.path,
                "digest": entry.digest,
                "in_corpus": entry.in_corpus,
            }
        )
    return pa.Table.from_pylist(rows, schema=VIDEOS_SCHEMA)
