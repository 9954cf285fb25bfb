"""The Zarr v3 arrays of a cache: one shard per unit, inner chunks of 16 rows, no compression.

Compression would save at most 15 % and slow down random access. The crc32c of every inner chunk
detects flipped bits. One function here defines the content of ``zarr.json`` for the writer, the
reader and verification; the bytes of the shards are those that Zarr writes.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distinit.pipeline.cache.encoding import ArraySpec, array_specs
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.records import read_json
from distinit.pipeline.storage import atomic_write_bytes, open_inside
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.teacher import TeacherRecord

if TYPE_CHECKING:
    import zarr

__all__ = [
    "INNER_ROWS",
    "array_metadata",
    "check_array",
    "metadata_bytes",
    "open_array",
    "shard_bytes",
    "write_array_metadata",
]

INNER_ROWS = 16
"""Rows per inner chunk of a shard. The last chunk of a unit is padded to this size."""

_MAX_METADATA_BYTES = 1 << 16


def array_metadata(spec: ArraySpec, rows: int, capacity: int) -> dict[str, Any]:
    """The content of ``zarr.json`` for an array [rows, spec.width]."""
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
    """The bytes of ``zarr.json``."""
    return (json.dumps(array_metadata(spec, rows, capacity), indent=2) + "\n").encode()


def shard_bytes(spec: ArraySpec, capacity: int) -> int:
    """Size of a full shard: all inner chunks, each with a crc32c, and the index at the end."""
    chunks = capacity // INNER_ROWS
    return chunks * (INNER_ROWS * spec.row_bytes + 4) + chunks * 16 + 4


def write_array_metadata(folder: Path, spec: ArraySpec, rows: int, capacity: int) -> None:
    """Create an array or extend one. Only ``zarr.json`` is written; shards are not touched."""
    path, data = folder / "zarr.json", metadata_bytes(spec, rows, capacity)
    if not path.exists() or path.read_bytes() != data:
        atomic_write_bytes(path, data)


def check_array(folder: Path, spec: ArraySpec, rows: int, capacity: int) -> None:
    """Raise CacheCorruptError unless ``zarr.json`` describes exactly the expected array."""
    path = folder / "zarr.json"
    found = read_json(
        path,
        error=CacheCorruptError,
        remedy="restore the file from a copy of the cache",
        missing="the metadata of an array is missing",
        limit_bytes=_MAX_METADATA_BYTES,
    )
    expected = array_metadata(spec, rows, capacity)
    wrong = [key for key in expected if found.get(key) != expected[key]]
    if wrong or found.keys() != expected.keys():
        key = wrong[0] if wrong else str(sorted(found.keys() - expected.keys())[0])
        raise CacheCorruptError(
            f"{path} does not describe the array that the manifest requires",
            expected=f"{key} = {expected.get(key)}",
            found=f"{key} = {str(found.get(key))[:200]}",
            remedy="do not use this cache; ask its sender for a clean copy",
        )


def open_array(
    layout: CacheLayout, record: TeacherRecord, name: str, units: Iterable[int], capacity: int
) -> zarr.Array[Any]:
    """Open a stored array through the Zarr API, after checking the type and size of its shards.

    ``units`` are those with a commit record. Reading a missing shard raises an error instead of
    returning zeros. Raises CacheCorruptError for a shard that is not a regular file of the cache,
    or is too large.
    """
    import zarr

    specs = {spec.name: spec for spec in array_specs(record.encoding, record.identity.classes)}
    limit_bytes = shard_bytes(specs[name], capacity)
    for unit in units:
        _check_shard_file(layout, layout.shard(record.id, name, unit), limit_bytes)
    folder = layout.array(record.id, name)
    return zarr.open_array(folder, mode="r", config={"read_missing_chunks": False})


def _check_shard_file(layout: CacheLayout, path: Path, limit_bytes: int) -> None:
    """Zarr would wait for a pipe, follow a link out of the cache, and read a file of any size."""
    try:
        descriptor = open_inside(layout.root, path)
        size_bytes = os.fstat(descriptor).st_size
        os.close(descriptor)
        if size_bytes > limit_bytes:
            raise OSError(errno.EFBIG, f"{size_bytes} bytes, at most {limit_bytes} are allowed")
    except FileNotFoundError:
        return  # a unit without rows has no shard
    except OSError as error:
        raise CacheCorruptError(
            f"a shard of the cache cannot be opened: {path}",
            expected="a regular file of the cache",
            found=error.strerror,
            remedy="do not use this cache; ask its sender for a clean copy",
        ) from error
