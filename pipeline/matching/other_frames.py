"""Finds frames in the middle of a copy that show something else than the video does. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.video.hashing import hamming_distance

__all__ = ["other_frames"]

_FEWEST_ROWS = 3  # in a row: single frames differ in honest copies, too (decision 46)
_OTHER_BITS = 8  # of another picture, wherever it is from
_NEARBY_FRAMES = 8  # a picture of the same video that belongs elsewhere, such as a reversed part
_BETTER_BITS = 4  # by which it must fit better there


def other_frames(
    frame_index_N: NDArray[np.int64],
    hash_N: NDArray[np.uint64],
    copy_hash_F: NDArray[np.uint64],
    max_bits: int,
) -> tuple[int, int] | None:
    """The first and the last frame of the longest part that is clearly not the video's.

    Args:
        frame_index_N: Frames of the video whose hashes are known, ascending.
        hash_N: Their hashes.
        copy_hash_F: Hashes of all frames of the copy; frame i stands for frame i of the video.
        max_bits: Bits by which the hashes of two pictures of one frame may differ.

    A row counts if it differs by more than the video itself does from row to row (hashes of dark
    and flat pictures are noise), and either shows another picture or fits a frame nearby better.
    None if no part has three such rows.
    """
    inside_N = frame_index_N < len(copy_hash_F)
    index_K, hash_K = frame_index_N[inside_N], hash_N[inside_N]
    if len(index_K) < _FEWEST_ROWS:
        return None
    bits_K = hamming_distance(hash_K, copy_hash_F[index_K]).astype(np.int64)
    step_K = hamming_distance(hash_K[1:], hash_K[:-1]).astype(np.int64)
    own_bits_K = np.maximum(np.append(step_K, 0), np.append(0, step_K))
    better_K = bits_K - _fewest_bits_nearby(index_K, hash_K, copy_hash_F) >= _BETTER_BITS
    is_other_K = (bits_K > max_bits) & (bits_K > own_bits_K)
    is_other_K &= (bits_K > max(_OTHER_BITS, max_bits)) | better_K
    first, count = _longest_run(is_other_K)
    if count < _FEWEST_ROWS:
        return None
    return int(index_K[first]), int(index_K[first + count - 1])


def _fewest_bits_nearby(
    index_K: NDArray[np.int64], hash_K: NDArray[np.uint64], copy_hash_F: NDArray[np.uint64]
) -> NDArray[np.int64]:
    fewest_K = np.full(len(index_K), 64, np.int64)
    for shift in range(-_NEARBY_FRAMES, _NEARBY_FRAMES + 1):
        position_K = np.clip(index_K + shift, 0, len(copy_hash_F) - 1)
        fewest_K = np.minimum(fewest_K, hamming_distance(hash_K, copy_hash_F[position_K]))
    return fewest_K


def _longest_run(true_K: NDArray[np.bool_]) -> tuple[int, int]:
    """Position and length of the longest run of true values."""
    edges = np.diff(np.concatenate([[0], true_K.astype(np.int8), [0]]))
    first_R, end_R = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(first_R):
        return 0, 0
    longest = int(np.argmax(end_R - first_R))
    return int(first_R[longest]), int(end_R[longest] - first_R[longest])
