"""A perceptual hash, to check whether two decoded frames show the same picture.

Definition, so that it can be recomputed without this project:

1. Take the frame as it is displayed (rotated as the container says).
2. Scale it to 72 x 64 pixels (width x height), 8-bit full-range gray, by area averaging:
   ffmpeg ``scale=w=72:h=64:flags=area,format=gray``.
3. Average blocks of 8 x 8 pixels into a table of 8 rows x 9 columns. Only the order of the block
   sums matters, so nothing is rounded.
4. For each row from the top, for each of its 8 pairs of neighbours from the left: bit = 1 if
   the right block is brighter than the left one, else 0 (equal: 0).
5. The 64 bits in this order form an unsigned integer; the first bit is the most significant.

It is a difference hash ("dHash"). Hashes are compared by the number of bits that differ: decoders
and scalers that round differently flip a few bits, another frame flips many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "THUMBNAIL_FILTERS",
    "THUMBNAIL_HEIGHT",
    "THUMBNAIL_WIDTH",
    "hamming_distance",
    "perceptual_hash",
]

_BLOCK = 8
THUMBNAIL_HEIGHT = 8 * _BLOCK
THUMBNAIL_WIDTH = 9 * _BLOCK
THUMBNAIL_FILTERS = f"scale=w={THUMBNAIL_WIDTH}:h={THUMBNAIL_HEIGHT}:flags=area,format=gray"


def perceptual_hash(gray_NHW: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """64-bit difference hashes of gray thumbnails: uint8 [N, 64, 72] -> uint64 [N].

    Raises ValueError for another shape.
    """
    if gray_NHW.ndim != 3 or gray_NHW.shape[1:] != (THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH):
        raise ValueError(
            f"thumbnails must be [N, {THUMBNAIL_HEIGHT}, {THUMBNAIL_WIDTH}], not {gray_NHW.shape}"
        )
    blocks = gray_NHW.reshape(-1, 8, _BLOCK, 9, _BLOCK).sum(axis=(2, 4), dtype=np.int64)
    bits = (blocks[:, :, 1:] > blocks[:, :, :-1]).reshape(-1, 64)
    packed = np.packbits(bits, axis=1)
    return packed.view(">u8").astype(np.uint64).reshape(-1)


def hamming_distance(a_N: NDArray[np.uint64], b_N: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Number of bits that differ between two hashes, elementwise: 0 (same picture) .. 64."""
    return np.bitwise_count(np.bitwise_xor(a_N, b_N))
