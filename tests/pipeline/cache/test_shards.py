"""The direct reader agrees with Zarr to the bit, and refuses a damaged shard."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distinit.pipeline.cache.arrays import INNER_ROWS, write_array_metadata
from distinit.pipeline.cache.encoding import ArraySpec
from distinit.pipeline.cache.layout import DAMAGE_REMEDY, CacheLayout
from distinit.pipeline.cache.shard_rows import encode_shard
from distinit.pipeline.cache.shards import ShardReader, crc32c
from distinit.schemas.errors import CacheCorruptError

SPECS = [
    ArraySpec("logits", 11, np.dtype("<f2")),
    ArraySpec("logits", 7, np.dtype("i1")),
    ArraySpec("logits_affine", 2, np.dtype("<f4")),
    ArraySpec("logits_ids", 3, np.dtype("<u2")),
    ArraySpec("logits_ids", 3, np.dtype("<i4")),
]


def shard_reader(root: Path, spec: ArraySpec, unit: int = 0) -> ShardReader:
    return ShardReader(CacheLayout(root), "t", spec, unit, 256)


def shard_path(root: Path, spec: ArraySpec, unit: int = 0) -> Path:
    path = CacheLayout(root).shard("t", spec.name, unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def make_shard(root: Path, spec: ArraySpec, rows: int = 256, used: int = 150) -> np.ndarray:
    rows_RW = np.zeros((rows, spec.width), spec.dtype)
    rng = np.random.default_rng(0)
    rows_RW[:used] = rng.integers(-100, 100, (used, spec.width)).astype(spec.dtype)
    shard_path(root, spec).write_bytes(encode_shard(spec, rows_RW, used))
    write_array_metadata(CacheLayout(root).array("t", spec.name), spec, rows, rows)
    return rows_RW


def read(reader: ShardReader, spec: ArraySpec, rows_N: np.ndarray) -> np.ndarray:
    out = np.empty((len(rows_N), spec.width), spec.dtype)
    reader.read_into(rows_N, out, np.arange(len(rows_N)))
    return out


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.dtype}")
def test_rows_equal_what_zarr_reads(tmp_path: Path, spec: ArraySpec) -> None:
    rows_RW = make_shard(tmp_path, spec)
    array = zarr.open_array(CacheLayout(tmp_path).array("t", spec.name), mode="r")
    rows_N = np.array([149, 0, 16, 15, 0, 127, 128])
    found = read(shard_reader(tmp_path, spec), spec, rows_N)
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
    found = read(shard_reader(folder, SPECS[0]), SPECS[0], rows_N)
    array = zarr.open_array(CacheLayout(folder).array("t", "logits"), mode="r")
    assert np.array_equal(found, array[:][rows_N])


def test_used_rows_that_are_all_zero_are_written(tmp_path: Path) -> None:
    spec = SPECS[0]
    shard_path(tmp_path, spec).write_bytes(encode_shard(spec, np.zeros((256, 11), "<f2"), 65))
    reader = shard_reader(tmp_path, spec)
    assert (reader.chunk_offsets >= 0).tolist() == [True] * 5 + [False] * 11
    assert not read(reader, spec, np.array([0, 64])).any()


def test_a_row_that_was_never_written_is_refused(tmp_path: Path) -> None:
    make_shard(tmp_path, SPECS[0])
    reader = shard_reader(tmp_path, SPECS[0])
    with pytest.raises(CacheCorruptError, match="content of shard") as caught:
        read(reader, SPECS[0], np.array([3, 200]))
    assert "row 200" in str(caught.value)


def test_chunks_carry_a_checksum_that_is_verified(tmp_path: Path) -> None:
    rows_RW = make_shard(tmp_path, SPECS[0])
    path = shard_path(tmp_path, SPECS[0])
    reader = shard_reader(tmp_path, SPECS[0])
    chunk = reader.read_chunk(1)
    assert chunk is not None
    assert np.array_equal(chunk, rows_RW[16:32])
    assert reader.read_chunk(15) is None
    data = bytearray(path.read_bytes())
    data[int(reader.chunk_offsets[1]) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CacheCorruptError, match="chunk 1 of shard"):
        shard_reader(tmp_path, SPECS[0]).read_chunk(1)


@given(place=st.integers(1, 16 * 16 + 4), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_index_is_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "shards-index"
    if not folder.exists():
        make_shard(folder, SPECS[0])
    data = bytearray(shard_path(folder, SPECS[0]).read_bytes())
    data[-place] ^= 1 << bit
    shard_path(folder, SPECS[0], 1).write_bytes(data)
    with pytest.raises(CacheCorruptError, match="index of shard"):
        shard_reader(folder, SPECS[0], 1)


def test_a_signed_index_that_points_outside_is_refused(tmp_path: Path) -> None:
    make_shard(tmp_path, SPECS[0])
    data = bytearray(shard_path(tmp_path, SPECS[0]).read_bytes())
    for offset, size in ((1 << 40, 16 * 22 + 4), (0, 7), (2**63 + 1, 16 * 22 + 4)):
        index = np.frombuffer(data[-260:-4], "<u8").copy()
        index[:2] = offset, size
        data[-260:] = index.tobytes() + crc32c(index.tobytes()).to_bytes(4, "little")
        shard_path(tmp_path, SPECS[0], 1).write_bytes(data)
        with pytest.raises(CacheCorruptError, match="index of shard"):
            shard_reader(tmp_path, SPECS[0], 1)


def test_missing_and_short_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheCorruptError, match="cannot be opened"):
        shard_reader(tmp_path, SPECS[0])
    shard_path(tmp_path, SPECS[0]).write_bytes(b"123")
    with pytest.raises(CacheCorruptError, match="file of shard"):
        shard_reader(tmp_path, SPECS[0])


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.dtype}")
@pytest.mark.parametrize("row", [0, 5, 16, 149])
def test_a_flipped_bit_is_noticed_by_whoever_reads_the_row(
    tmp_path: Path, spec: ArraySpec, row: int
) -> None:
    make_shard(tmp_path, spec)
    path = shard_path(tmp_path, spec)
    data = bytearray(path.read_bytes())
    chunk, inside = divmod(row, INNER_ROWS)
    offset = int(shard_reader(tmp_path, spec).chunk_offsets[chunk])
    data[offset + inside * spec.row_bytes] ^= 1
    path.write_bytes(data)
    reader = shard_reader(tmp_path, spec)
    read(reader, spec, np.array([32, 40]))  # of another chunk
    with pytest.raises(CacheCorruptError, match=f"chunk {chunk} of shard") as caught:
        read(reader, spec, np.array([33, row]))
    for part in (str(path), "unit-00000 of teacher t", DAMAGE_REMEDY):
        assert part in str(caught.value)


def test_what_is_known_of_a_shard_outlives_its_descriptor(tmp_path: Path) -> None:
    rows_RW = make_shard(tmp_path, SPECS[0])
    path = shard_path(tmp_path, SPECS[0])
    reader = shard_reader(tmp_path, SPECS[0])
    read(reader, SPECS[0], np.array([3]))
    offsets = reader.chunk_offsets
    reader.release()
    assert np.array_equal(read(reader, SPECS[0], np.array([4])), rows_RW[[4]])
    assert reader.chunk_offsets is offsets  # the index was not read again
    reader.release()
    data = bytearray(path.read_bytes())
    data[int(offsets[0])] ^= 1
    path.with_name("new").write_bytes(data)
    path.with_name("new").replace(path)
    with pytest.raises(CacheCorruptError, match="chunk 0 of shard"):
        read(reader, SPECS[0], np.array([3]))  # another file of the same name is trusted anew


def test_a_shard_that_is_no_regular_file_or_leads_outside_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    make_shard(root, SPECS[0])
    outside = tmp_path / "outside"
    outside.write_bytes(shard_path(root, SPECS[0]).read_bytes())
    os.mkfifo(shard_path(root, SPECS[0], 1))
    shard_path(root, SPECS[0], 2).symlink_to(outside)
    shard_path(root, SPECS[0], 3).symlink_to("/dev/zero")
    for unit, found in ((1, "not a regular file"), (2, "outside"), (3, "not a regular file")):
        with pytest.raises(CacheCorruptError, match="cannot be opened") as caught:
            shard_reader(root, SPECS[0], unit)
        assert found in str(caught.value)


def test_crc32c_check_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283
