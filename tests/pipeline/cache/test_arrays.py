"""``zarr.json`` as written here is what Zarr itself would write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec

from distinit.pipeline.cache.arrays import (
    array_metadata,
    check_array,
    write_array_metadata,
)
from distinit.pipeline.cache.encoding import ArraySpec
from distinit.pipeline.cache.shard_rows import encode_shard
from distinit.schemas.errors import CacheCorruptError

FLOAT16 = ArraySpec("logits", 10, np.dtype("<f2"))


@pytest.mark.parametrize("dtype", ["<f2", "i1", "<f4", "<u2", "<i4"])
def test_metadata_equals_that_of_zarr(tmp_path: Path, dtype: str) -> None:
    spec = ArraySpec("logits", 10, np.dtype(dtype))
    zarr.create_array(
        tmp_path / "theirs",
        shape=(256, 10),
        shards=(128, 10),
        chunks=(16, 10),
        dtype=spec.dtype.name,
        compressors=Crc32cCodec(),
        fill_value=0,
        dimension_names=("row", "value"),
    )
    theirs = json.loads((tmp_path / "theirs/zarr.json").read_text())
    assert array_metadata(spec, 256, 128) == theirs


def test_shards_placed_by_hand_read_through_zarr(tmp_path: Path) -> None:
    write_array_metadata(tmp_path / "a", FLOAT16, 256, 128)
    values = np.arange(1280).reshape(128, 10).astype(np.float16)
    (tmp_path / "a/c/1").mkdir(parents=True)
    (tmp_path / "a/c/1/0").write_bytes(encode_shard(FLOAT16, values, 128))
    array = zarr.open_array(tmp_path / "a", mode="r")
    assert array.shape == (256, 10)
    assert np.array_equal(array[128:], values)


@pytest.mark.parametrize("used_rows", [1, 65, 256])
@pytest.mark.parametrize("dtype", ["<f2", "i1", "<f4", "<u2", "<i4"])
def test_a_shard_has_the_bytes_that_zarr_writes(tmp_path: Path, dtype: str, used_rows: int) -> None:
    spec = ArraySpec("logits", 7, np.dtype(dtype))
    rows_RW = np.zeros((256, 7), dtype)
    rows_RW[:used_rows] = np.arange(used_rows * 7).reshape(used_rows, 7) % 120
    write_array_metadata(tmp_path, spec, 256, 256)
    array = zarr.open_array(tmp_path, mode="r+", config={"write_empty_chunks": True})
    padded = -(-used_rows // 16) * 16
    array[:padded] = rows_RW[:padded]
    assert encode_shard(spec, rows_RW, used_rows) == (tmp_path / "c/0/0").read_bytes()


def test_growing_writes_the_description_only(tmp_path: Path) -> None:
    write_array_metadata(tmp_path, FLOAT16, 128, 128)
    before = (tmp_path / "zarr.json").stat().st_ino
    write_array_metadata(tmp_path, FLOAT16, 128, 128)
    assert (tmp_path / "zarr.json").stat().st_ino == before
    write_array_metadata(tmp_path, FLOAT16, 384, 128)
    assert zarr.open_array(tmp_path, mode="r").shape == (384, 10)
    assert [p.name for p in tmp_path.iterdir()] == ["zarr.json"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [512, 10]),
        ("data_type", "float32"),
        ("codecs", [{"name": "numcodecs.pickle"}]),
        ("fill_value", 1.0),
        ("storage_transformers", [{"name": "x"}]),
        ("extra", 1),
    ],
)
def test_another_description_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    write_array_metadata(tmp_path, FLOAT16, 256, 128)
    check_array(tmp_path, FLOAT16, 256, 128)
    metadata = json.loads((tmp_path / "zarr.json").read_text())
    (tmp_path / "zarr.json").write_text(json.dumps(metadata | {key: value}))
    with pytest.raises(CacheCorruptError, match="does not describe the array") as caught:
        check_array(tmp_path, FLOAT16, 256, 128)
    assert key in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_damaged_description_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "zarr.json").write_bytes(content)
    with pytest.raises(CacheCorruptError):
        check_array(tmp_path, FLOAT16, 256, 128)
