"""The Zarr v3 arrays of a cache: one shard a unit, inner chunks of 16 rows, no compression.

Compression would save at most 15 % and cost random access; crc32c on every inner chunk finds
flipped bits. ``zarr.json`` is written here as the format says, so that one function is the
truth for the writer, the reader and verification; the shards themselves are written by Zarr.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from distinit.pipeline.cache.encoding import ArraySpec
from distinit.pipeline.records import read_json
from distinit.pipeline.storage import atomic_write_bytes, storage_errors
from distinit.schemas.errors import CacheCorruptError

__all__ = [
    "INNER_ROWS",
    "array_metadata",
    "check_array",
    "encode_shard",
    "metadata_bytes",
    "shard_bytes",
    "write_array_metadata",
]

INNER_ROWS = 16
"""Rows of an inner chunk of a shard. The last chunk of a unit is padded to this size."""

_MAX_METADATA_BYTES = 1 << 16


def array_metadata(spec: ArraySpec, rows: int, capacity: int) -> dict[str, Any]:
    """The content of ``zarr.json`` of an array [rows, spec.width]."""
    little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    inner = little if spec.dtype.itemsize > 1 else {"name": "bytes"}
    sharding = {
        "chunk_shape": [INNER_ROWS, spec.width],
        "codecs": [inner, {"name": "crc32c"}],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, spec.width],
        "data_type": spec.dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [capacity, spec.width]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if spec.dtype.kind == "f" else 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "dimension_names": ["row", "value"],
        "storage_transformers": [],
    }


def metadata_bytes(spec: ArraySpec, rows: int, capacity: int) -> bytes:
    """``zarr.json`` as it is written."""
    return (json.dumps(array_metadata(spec, rows, capacity), indent=2) + "\n").encode()


def shard_bytes(spec: ArraySpec, capacity: int) -> int:
    """Size of a shard with all its inner chunks, each with a crc32c, and the index at its end."""
    chunks = capacity // INNER_ROWS
    return chunks * (INNER_ROWS * spec.row_bytes + 4) + chunks * 16 + 4


def write_array_metadata(folder: Path, spec: ArraySpec, rows: int, capacity: int) -> None:
    """Create an array, or grow one: only ``zarr.json`` is written, shards stay as they are."""
    path, data = folder / "zarr.json", metadata_bytes(spec, rows, capacity)
    if not path.exists() or path.read_bytes() != data:
        atomic_write_bytes(path, data)


def check_array(folder: Path, spec: ArraySpec, rows: int, capacity: int) -> None:
    """Raises CacheCorruptError unless ``zarr.json`` describes exactly the array of the manifest."""
    path = folder / "zarr.json"
    found = read_json(
        path,
        error=CacheCorruptError,
        remedy="restore the file from a copy of the cache",
        missing="the description of an array is missing",
        limit_bytes=_MAX_METADATA_BYTES,
    )
    wanted = array_metadata(spec, rows, capacity)
    wrong = [key for key in wanted if found.get(key) != wanted[key]]
    if wrong or found.keys() != wanted.keys():
        key = wrong[0] if wrong else str(sorted(found.keys() - wanted.keys())[0])
        raise CacheCorruptError(
            f"{path} describes another array than the manifest",
            expected=f"{key} = {wanted.get(key)}",
            found=f"{key} = {str(found.get(key))[:200]}",
            remedy="do not use this cache; ask its sender for a clean copy",
        )


def encode_shard(folder: Path, spec: ArraySpec, rows_RW: np.ndarray, used_rows: int) -> Path:
    """Let Zarr write one whole shard in a private array at ``folder``; returns the shard file.

    Args:
        folder: A folder of the caller's own.
        spec: What is stored.
        rows_RW: The whole unit [capacity, width]; unused rows are zero.
        used_rows: One more than the last used row. Chunks up to there are written even when
            they are all zero, so that a used row never lies in an absent chunk.
    """
    import zarr  # a second of import that readers of a finished cache do not pay

    capacity = len(rows_RW)
    write_array_metadata(folder, spec, capacity, capacity)
    with storage_errors(folder):
        array = zarr.open_array(folder, mode="r+", config={"write_empty_chunks": True})
        written = -(-used_rows // INNER_ROWS) * INNER_ROWS
        array[:written] = rows_RW[:written]
    return folder / "c" / "0" / "0"
