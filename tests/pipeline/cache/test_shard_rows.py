"""The rows of a shard from its bytes: as Zarr wrote them, and refused once a byte has changed."""

from __future__ import annotations

import numpy as np
import pytest

from distinit.pipeline.cache.encoding import ArraySpec, decode
from distinit.pipeline.cache.shard_rows import ShardError, ShardRows, encode_shard

SPEC = ArraySpec("logits", 5, np.dtype("<f2"))
STEP = 16 * 10 + 4  # bytes of an inner chunk of 16 rows, and of its checksum


def shard(used_rows: int) -> tuple[bytes, np.ndarray]:
    """The bytes of a shard of 64 rows, and its rows."""
    rows_RW = np.zeros((64, 5), np.float16)
    rows_RW[:used_rows] = np.random.default_rng(1).standard_normal((used_rows, 5))
    return encode_shard(SPEC, rows_RW, used_rows), rows_RW


@pytest.mark.parametrize("row_N", [[], [0], [3, 4, 5], [15, 16, 40], list(range(64)), [20, 63]])
def test_rows_are_those_that_were_written(row_N: list[int]) -> None:
    data, rows_RW = shard(40)
    rows = ShardRows(memoryview(data), SPEC, 64)
    rows.check()
    assert rows.offsets.tolist() == [0, STEP, 2 * STEP, -1]
    assert rows[np.array(row_N, np.int64)].tobytes() == rows_RW[row_N].tobytes()


def test_chunks_in_another_order_are_found_by_their_index() -> None:
    data, rows_RW = shard(64)
    chunks = [data[i * STEP : (i + 1) * STEP] for i in range(4)]
    rows = ShardRows(memoryview(b"".join([*reversed(chunks), data[4 * STEP :]])), SPEC, 64)
    rows.offsets = rows.offsets[::-1].copy()
    rows.check()
    assert rows[np.arange(64)].tobytes() == rows_RW.tobytes()


@pytest.mark.parametrize(
    ("place", "part"), [(0, "chunk 0"), (STEP - 1, "chunk 0"), (STEP + 3, "chunk 1"), (-2, "index")]
)
def test_a_changed_byte_is_refused(place: int, part: str) -> None:
    data = bytearray(shard(64)[0])
    data[place] ^= 1
    with pytest.raises(ShardError) as raised:
        ShardRows(memoryview(data), SPEC, 64).check()
    assert raised.value.part == part


def test_a_short_file_is_refused() -> None:
    with pytest.raises(ShardError, match="file: expected at least 68 bytes, found 9 bytes"):
        ShardRows(memoryview(b"123456789"), SPEC, 64)


def test_every_float16_is_decoded_as_numpy_does() -> None:
    every_N1 = np.arange(1 << 16, dtype=np.uint16).view(np.float16)[:, None]
    finite_N1 = every_N1[np.isfinite(every_N1[:, 0])]
    for rows in (finite_N1, every_N1, finite_N1[::2]):
        decoded = decode({"logits": rows}, "float16", 1)
        assert decoded.dtype == np.float32
        assert decoded.tobytes() == rows.astype(np.float32).tobytes()
