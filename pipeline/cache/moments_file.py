"""Files with the moments of feature vectors: of a teacher, or of a unit until they are merged.

A safetensors file with the count of vectors and units, the mean, the lower triangle of the scatter
matrix, which stored values they belong to, and a sha256 over all this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from distinit.pipeline.cache.feature_moments import FeatureMoments, scatter_shape
from distinit.pipeline.storage import atomic_write_bytes, read_bounded

__all__ = [
    "MAX_MOMENTS_BYTES",
    "MomentsError",
    "StoredMoments",
    "content_of_units",
    "max_moments_bytes",
    "read_moments",
    "write_moments",
]

MAX_MOMENTS_BYTES = 72 << 20
"""Size limit of the file of any teacher: 67 MB with 4,096 channels."""
_HEADER_BYTES = 4_096
_TENSORS = ("content_sha256", "mean", "scatter", "sha256", "units", "vectors")
_ORDER = ("vectors", "units", "content_sha256", "mean", "scatter")


class MomentsError(ValueError):
    """The file is not one that ``write_moments`` wrote."""


@dataclass(frozen=True, slots=True)
class StoredMoments:
    """The content of a file.

    Attributes:
        moments: Moments of all vectors of the first ``units`` units, or of a single one.
        units: How many units they are.
        content: sha256, 32 bytes, that identifies the stored values; see ``content_of_units``.
    """

    moments: FeatureMoments
    units: int
    content: bytes


def content_of_units(unit_digests: Iterable[str]) -> bytes:
    """sha256 over the ``content_sha256`` of units, in their order."""
    return hashlib.sha256("".join(f"{digest}\n" for digest in unit_digests).encode()).digest()


def max_moments_bytes(channels: int) -> int:
    """The most bytes that a file of this many channels may have."""
    return _HEADER_BYTES + 8 * (channels + _packed_length(channels))


def write_moments(stored: StoredMoments, path: Path) -> None:
    """Write a file atomically: the same moments give the same bytes. Raises OSError."""
    moments = stored.moments
    tensors: dict[str, np.ndarray] = {
        "vectors": np.array([moments.vectors], np.int64),
        "units": np.array([stored.units], np.int64),
        "content_sha256": np.frombuffer(stored.content, np.uint8),
        "mean": moments.mean_C,
        "scatter": _packed(moments.scatter),
    }
    tensors["sha256"] = _sha256(tensors)
    atomic_write_bytes(path, save(tensors))


def read_moments(path: Path, channels: int) -> StoredMoments:
    """Read a file, which may come from others.

    Raises OSError, also for a file that is too large, and MomentsError for any other content.
    """
    data = read_bounded(path, max_moments_bytes(channels))
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise MomentsError("not a safetensors file") from error
    expected = {
        "vectors": (np.dtype(np.int64), (1,)),
        "units": (np.dtype(np.int64), (1,)),
        "content_sha256": (np.dtype(np.uint8), (32,)),
        "mean": (np.dtype(np.float64), (channels,)),
        "scatter": (np.dtype(np.float64), (_packed_length(channels),)),
        "sha256": (np.dtype(np.uint8), (32,)),
    }
    if {name: (t.dtype, t.shape) for name, t in tensors.items()} != expected:
        raise MomentsError(f"its tensors are not {', '.join(_TENSORS)} of {channels} channels")
    if not np.array_equal(_sha256(tensors), tensors["sha256"]):
        raise MomentsError("its sha256 is not that of its values")
    vectors, units = int(tensors["vectors"][0]), int(tensors["units"][0])
    moments = FeatureMoments(vectors, tensors["mean"], _unpacked(tensors["scatter"], channels))
    diagonal_C = moments.scatter if moments.scatter.ndim == 1 else moments.scatter.diagonal()
    finite = np.isfinite(tensors["mean"]).all() and np.isfinite(tensors["scatter"]).all()
    if vectors < 0 or units < 0 or not finite or (diagonal_C < 0).any():
        raise MomentsError("it has negative counts or variances, or values that are not finite")
    return StoredMoments(moments, units, tensors["content_sha256"].tobytes())


def _packed_length(channels: int) -> int:
    shape = scatter_shape(channels)
    return channels * (channels + 1) // 2 if len(shape) == 2 else channels


def _packed(scatter: np.ndarray) -> np.ndarray:
    """The lower triangle, row by row; a diagonal as it is."""
    if scatter.ndim == 1:
        return scatter
    return np.concatenate([row[: number + 1] for number, row in enumerate(scatter)])


def _unpacked(packed: np.ndarray, channels: int) -> np.ndarray:
    if len(scatter_shape(channels)) == 1:
        return packed
    scatter_CC, start = np.empty((channels, channels)), 0
    for row in range(channels):
        scatter_CC[row, : row + 1] = scatter_CC[: row + 1, row] = packed[start : start + row + 1]
        start += row + 1
    return scatter_CC


def _sha256(tensors: dict[str, np.ndarray]) -> np.ndarray:
    digest = hashlib.sha256()
    for name in _ORDER:
        values = tensors[name]
        digest.update(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))))
    return np.frombuffer(digest.digest(), np.uint8)
