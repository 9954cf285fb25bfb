"""The rows of a whole shard, to its bytes and back; every chunk has a crc32c, which is checked."""

from __future__ import annotations

import google_crc32c
import numpy as np

from distinit.pipeline.cache.arrays import INNER_ROWS
from distinit.pipeline.cache.encoding import ArraySpec

__all__ = ["CRC_BYTES", "ShardError", "ShardRows", "chunk_offsets", "crc32c", "encode_shard"]

CRC_BYTES = 4
_ABSENT = np.uint64(2**64 - 1)


class ShardError(Exception):
    """A ``part`` of a shard is damaged."""

    def __init__(self, part: str, expected: str, found: str) -> None:
        super().__init__(f"{part}: expected {expected}, found {found}")
        self.part = part
        self.expected = expected
        self.found = found


def crc32c(data: bytes | memoryview | np.ndarray) -> int:
    """CRC-32C (Castagnoli), as in Zarr's crc32c codec."""
    return int(google_crc32c.value(bytes(data)))


def chunk_offsets(index: bytes, size_bytes: int, chunks: int, spec: ArraySpec) -> np.ndarray:
    """Byte offset of each inner chunk, int64 [chunks]; -1 for absent ones.

    ``index``: the last bytes of a shard file of ``size_bytes``. Raises ShardError.
    """
    index_bytes = chunks * 16 + CRC_BYTES
    if len(index) != index_bytes:
        raise ShardError("file", f"at least {index_bytes} bytes", f"{size_bytes} bytes")
    stored = int.from_bytes(index[-CRC_BYTES:], "little")
    if crc32c(index[:-CRC_BYTES]) != stored:
        raise ShardError("index", f"crc32c {stored:08x}", "a different checksum")
    pairs = np.frombuffer(index, "<u8", chunks * 2).reshape(chunks, 2)
    absent = (pairs == _ABSENT).all(axis=1)
    offsets = np.where(absent, 0, pairs[:, 0])
    chunk_bytes = INNER_ROWS * spec.row_bytes + CRC_BYTES
    limit = size_bytes - index_bytes - chunk_bytes
    sound = (pairs[:, 1] == chunk_bytes) & (offsets <= max(limit, -1) if limit >= 0 else False)
    if not (absent | sound).all():
        raise ShardError(
            "index", f"chunks of {chunk_bytes} bytes inside the file", "invalid offsets or sizes"
        )
    return np.where(absent, -1, offsets.astype(np.int64))


def encode_shard(spec: ArraySpec, rows_RW: np.ndarray, used_rows: int) -> bytes:
    """The bytes of one shard, the same as Zarr writes.

    Zarr itself runs several tasks for each inner chunk and holds the interpreter lock meanwhile,
    so that the threads that read from decoders wait.

    Args:
        spec: The stored array.
        rows_RW: All rows of the unit [capacity, width]; unused rows are zero.
        used_rows: Index of the last used row plus one. Chunks up to there are written even if
            they are all zero, so that a used row is never in an absent chunk.
    """
    chunks, written = len(rows_RW) // INNER_ROWS, -(-used_rows // INNER_ROWS)
    chunk_bytes = INNER_ROWS * spec.row_bytes
    data_KB = np.empty((written, chunk_bytes + CRC_BYTES), np.uint8)
    rows = np.ascontiguousarray(rows_RW[: written * INNER_ROWS], spec.dtype)
    data_KB[:, :chunk_bytes] = rows.view(np.uint8).reshape(written, chunk_bytes)
    crc_K = np.array([crc32c(chunk_B) for chunk_B in data_KB[:, :chunk_bytes]], "<u4")
    data_KB[:, chunk_bytes:] = crc_K.view(np.uint8).reshape(written, CRC_BYTES)
    index_K2 = np.full((chunks, 2), _ABSENT, "<u8")
    index_K2[:written, 0] = np.arange(written) * (chunk_bytes + CRC_BYTES)
    index_K2[:written, 1] = chunk_bytes + CRC_BYTES
    index = index_K2.tobytes()
    return b"".join([data_KB.tobytes(), index, crc32c(index).to_bytes(CRC_BYTES, "little")])


class ShardRows:
    """All rows of one shard, [capacity, spec.width]; rows of absent chunks are zero.

    ``rows[row_N]`` copies the given ascending rows, so the memory is that of a block.
    """

    def __init__(self, data: memoryview, spec: ArraySpec, capacity: int) -> None:
        """``data``: all bytes of the file. Raises ShardError for a damaged index."""
        chunks = capacity // INNER_ROWS
        size_bytes, index_bytes = len(data), chunks * 16 + CRC_BYTES
        index = bytes(data[max(size_bytes - index_bytes, 0) :])
        self.offsets = chunk_offsets(index, size_bytes, chunks, spec)
        self.dtype = spec.dtype
        self.shape = (capacity, spec.width)
        self._data = data
        self._chunk_bytes = INNER_ROWS * spec.row_bytes
        self._step = self._chunk_bytes + CRC_BYTES

    def check(self) -> None:
        """Raise ShardError unless the crc32c of every chunk is right."""
        for chunk, offset in enumerate(self.offsets.tolist()):
            if offset < 0:
                continue
            end = offset + self._chunk_bytes
            stored = int.from_bytes(self._data[end : end + CRC_BYTES], "little")
            if crc32c(self._data[offset:end]) != stored:
                raise ShardError(f"chunk {chunk}", f"crc32c {stored:08x}", "a different checksum")

    def __getitem__(self, row_N: np.ndarray) -> np.ndarray:
        """Copies of ascending rows, [N, width]."""
        if not len(row_N):
            return np.zeros((0, self.shape[1]), self.dtype)
        first, last = int(row_N[0]), int(row_N[-1])
        if last - first + 1 == len(row_N):
            chunk_K = np.arange(first // INNER_ROWS, last // INNER_ROWS + 1)
            begin = first % INNER_ROWS
            return self._chunks(chunk_K)[begin : begin + len(row_N)]
        chunk_N, inside_N = np.divmod(row_N, INNER_ROWS)
        needed_K = np.unique(chunk_N)
        rows_RW = self._chunks(needed_K)
        return rows_RW[np.searchsorted(needed_K, chunk_N) * INNER_ROWS + inside_N]

    def _chunks(self, chunk_K: np.ndarray) -> np.ndarray:
        """The rows of whole chunks, [K * 16, width]."""
        offset_K = self.offsets[chunk_K]
        first, count = int(offset_K[0]), len(offset_K)
        if first >= 0 and (np.diff(offset_K) == self._step).all():
            block = np.frombuffer(self._data, np.uint8, count * self._step, first)
            bytes_KB = block.reshape(count, self._step)[:, : self._chunk_bytes]
            return np.ascontiguousarray(bytes_KB).view(self.dtype).reshape(-1, self.shape[1])
        rows_KRW = np.zeros((count, INNER_ROWS, self.shape[1]), self.dtype)
        for place, offset in enumerate(offset_K.tolist()):
            if offset >= 0:
                raw = np.frombuffer(self._data, np.uint8, self._chunk_bytes, offset)
                rows_KRW[place] = raw.view(self.dtype).reshape(INNER_ROWS, -1)
        return rows_KRW.reshape(-1, self.shape[1])
