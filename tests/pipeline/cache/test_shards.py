"""The direct reader agrees with Zarr to the bit, and refuses a damaged shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distinit.pipeline.cache.arrays import encode_shard
from distinit.pipeline.cache.encoding import ArraySpec
from distinit.pipeline.cache.shards import ShardReader, crc32c
from distinit.schemas.errors import CacheCorruptError

SPECS = [
    ArraySpec("logits", 11, np.dtype("<f2")),
    ArraySpec("logits", 7, np.dtype("i1")),
    ArraySpec("logits_affine", 2, np.dtype("<f4")),
    ArraySpec("logits_ids", 3, np.dtype("<u2")),
    ArraySpec("logits_ids", 3, np.dtype("<i4")),
]


def make_shard(folder: Path, spec: ArraySpec, rows: int = 256, used: int = 150) -> np.ndarray:
    rows_RW = np.zeros((rows, spec.width), spec.dtype)
    rng = np.random.default_rng(0)
    rows_RW[:used] = rng.integers(-100, 100, (used, spec.width)).astype(spec.dtype)
    encode_shard(folder, spec, rows_RW, used)
    return rows_RW


def read(reader: ShardReader, spec: ArraySpec, rows_N: np.ndarray) -> np.ndarray:
    out = np.empty((len(rows_N), spec.width), spec.dtype)
    reader.read_into(rows_N, out, np.arange(len(rows_N)))
    return out


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.dtype}")
def test_rows_equal_what_zarr_reads(tmp_path: Path, spec: ArraySpec) -> None:
    rows_RW = make_shard(tmp_path, spec)
    array = zarr.open_array(tmp_path, mode="r")
    rows_N = np.array([149, 0, 16, 15, 0, 127, 128])
    found = read(ShardReader(tmp_path / "c/0/0", spec, 256), spec, rows_N)
    assert found.dtype == spec.dtype
    assert np.array_equal(found, rows_RW[rows_N])
    assert np.array_equal(found, array.get_orthogonal_selection((rows_N, slice(None))))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 149), max_size=40))
def test_any_selection_of_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[int]) -> None:
    folder = tmp_path_factory.getbasetemp() / "shards-any"
    if not folder.exists():
        make_shard(folder, SPECS[0])
    rows_N = np.array(rows, np.int64)
    found = read(ShardReader(folder / "c/0/0", SPECS[0], 256), SPECS[0], rows_N)
    assert np.array_equal(found, zarr.open_array(folder, mode="r")[:][rows_N])


def test_used_rows_that_are_all_zero_are_written(tmp_path: Path) -> None:
    spec = SPECS[0]
    encode_shard(tmp_path, spec, np.zeros((256, 11), np.float16), 65)
    reader = ShardReader(tmp_path / "c/0/0", spec, 256)
    assert (reader.chunk_offsets >= 0).tolist() == [True] * 5 + [False] * 11
    assert not read(reader, spec, np.array([0, 64])).any()


def test_a_row_that_was_never_written_is_refused(tmp_path: Path) -> None:
    make_shard(tmp_path, SPECS[0])
    reader = ShardReader(tmp_path / "c/0/0", SPECS[0], 256)
    with pytest.raises(CacheCorruptError, match="content of shard") as caught:
        read(reader, SPECS[0], np.array([3, 200]))
    assert "row 200" in str(caught.value)


def test_chunks_carry_a_checksum_that_is_verified(tmp_path: Path) -> None:
    rows_RW = make_shard(tmp_path, SPECS[0])
    path = tmp_path / "c/0/0"
    reader = ShardReader(path, SPECS[0], 256)
    chunk = reader.read_chunk(1)
    assert chunk is not None
    assert np.array_equal(chunk, rows_RW[16:32])
    assert reader.read_chunk(15) is None
    data = bytearray(path.read_bytes())
    data[int(reader.chunk_offsets[1]) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CacheCorruptError, match="chunk 1 of shard"):
        ShardReader(path, SPECS[0], 256).read_chunk(1)


@given(place=st.integers(1, 16 * 16 + 4), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_index_is_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "shards-index"
    if not folder.exists():
        make_shard(folder, SPECS[0])
    data = bytearray((folder / "c/0/0").read_bytes())
    data[-place] ^= 1 << bit
    bad = folder / "bad"
    bad.write_bytes(data)
    with pytest.raises(CacheCorruptError, match="index of shard"):
        ShardReader(bad, SPECS[0], 256)


def test_a_signed_index_that_points_outside_is_refused(tmp_path: Path) -> None:
    make_shard(tmp_path, SPECS[0])
    data = bytearray((tmp_path / "c/0/0").read_bytes())
    for offset, size in ((1 << 40, 16 * 22 + 4), (0, 7), (2**63 + 1, 16 * 22 + 4)):
        index = np.frombuffer(data[-260:-4], "<u8").copy()
        index[:2] = offset, size
        data[-260:] = index.tobytes() + crc32c(index.tobytes()).to_bytes(4, "little")
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(CacheCorruptError, match="index of shard"):
            ShardReader(tmp_path / "bad", SPECS[0], 256)


def test_missing_and_short_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheCorruptError, match="cannot be opened"):
        ShardReader(tmp_path / "none", SPECS[0], 256)
    (tmp_path / "short").write_bytes(b"123")
    with pytest.raises(CacheCorruptError, match="file of shard"):
        ShardReader(tmp_path / "short", SPECS[0], 256)


def test_crc32c_check_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283
