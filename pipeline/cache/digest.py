"""Digests over the content of a cache; independent of how and in which order it was written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distinit.pipeline.cache.tables import column
from distinit.schemas.base import sha256_of
from distinit.schemas.manifest import CACHE_FORMAT_VERSION, PlanSummary
from distinit.schemas.video import SamplingConfig

__all__ = ["StoredRows", "content_digest", "corpus_digest", "plan_summary", "unit_content_sha256"]

_BLOCK_BYTES = 1 << 20  # of the copies made while hashing; they stay in the cache of a core
_LOCATION_COLUMNS = ("path", "size_bytes", "mtime_ns", "in_corpus")  # they do not affect rows


class StoredRows(Protocol):
    """Encoded targets, [rows, width]: an array, or the rows of a shard."""

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


def corpus_digest(digests: Iterable[str]) -> str:
    """sha256 over the sorted content digests of all videos."""
    return sha256_of(sorted(digests))


def plan_summary(table: pa.Table) -> PlanSummary:
    """The digests of a plan for the manifest (PLAN_SCHEMA, with its sizes in the metadata)."""
    row_columns = [name for name in table.schema.names if name not in _LOCATION_COLUMNS]
    return PlanSummary(
        digest=_plan_digest(table, table.schema.names), rows_digest=_plan_digest(table, row_columns)
    )


def _plan_digest(table: pa.Table, names: Sequence[str]) -> str:
    metadata = table.schema.metadata or {}
    sizes = b" ".join(metadata.get(key, b"") for key in (b"capacity", b"base_videos"))
    sha = hashlib.sha256(b"distinit plan " + sizes)
    for name in names:
        sha.update(f"{name}:{table.num_rows}:".encode())
        _add_column(sha, table, name)
    return sha.hexdigest()


def unit_content_sha256(
    frames: pa.Table,
    confidence: pa.Table,
    arrays: Mapping[str, StoredRows],
    used_rows: np.ndarray,
) -> str:
    """sha256 over the logical values of one unit: the columns of both tables, then the used rows.

    Args:
        frames: FRAMES_SCHEMA, used rows only.
        confidence: CONFIDENCE_SCHEMA or FEATURE_ROWS_SCHEMA, with the same rows.
        arrays: Encoded targets of all rows of the unit, name -> [capacity, width].
        used_rows: Used rows, 0-based within the unit, ascending.
    """
    sha = hashlib.sha256()
    for label, table in (("frames", frames), ("confidence", confidence)):
        for name in table.schema.names:
            sha.update(f"{label}.{name}:{table.num_rows}:".encode())
            _add_column(sha, table, name)
    for name in sorted(arrays):
        values = arrays[name]
        sha.update(f"{name}:{values.dtype.str}:{len(used_rows)}x{values.shape[1]}:".encode())
        step = max(_BLOCK_BYTES // (values.shape[1] * values.dtype.itemsize), 1)
        for start in range(0, len(used_rows), step):
            sha.update(np.ascontiguousarray(values[used_rows[start : start + step]]))
    return sha.hexdigest()


def _add_column(sha: hashlib._Hash, table: pa.Table, name: str) -> None:
    if pa.types.is_string(table.schema.field(name).type):
        texts = table.column(name).combine_chunks()
        lengths_N = pc.binary_length(texts).to_numpy(zero_copy_only=False)
        # Lengths first: ("ab", "c") and ("a", "bc") must differ.
        sha.update(lengths_N.astype("<i8"))
        if len(texts):
            _, ends, data = texts.buffers()
            end_N = np.frombuffer(ends, "<i4", len(texts) + 1, 4 * texts.offset)
            sha.update(memoryview(data or b"")[int(end_N[0]) : int(end_N[-1])])
        return
    values = column(table, name)
    sha.update(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False)))


def content_digest(
    sampling: SamplingConfig,
    capacity: int,
    videos: Sequence[Mapping[str, Any]],
    teachers: Mapping[str, tuple[str, str, Mapping[int, str]]],
) -> str:
    """Digest of a whole cache.

    Args:
        sampling: Which frames became rows.
        capacity: Rows per unit.
        videos: Rows of ``videos.parquet``. What differs between machines (path, error text,
            duration) is left out. ``in_corpus`` is included: it decides what is trained on.
        teachers: id -> (fingerprint, encoding, {unit: content_sha256}).
    """
    kept = ("video_id", "digest", "status", "frame_count", "width", "height", "in_corpus")
    records = sorted(
        ({key: video[key] for key in kept} for video in videos), key=lambda v: str(v["video_id"])
    )
    teacher_content = {
        name: {
            "fingerprint": fingerprint,
            "encoding": encoding,
            "units": {str(unit): units[unit] for unit in sorted(units)},
        }
        for name, (fingerprint, encoding, units) in teachers.items()
    }
    return sha256_of(
        {
            "format_version": CACHE_FORMAT_VERSION,
            "sampling": sampling.model_dump(mode="json"),
            "capacity": capacity,
            "videos": records,
            "teachers": teacher_content,
        }
    )
