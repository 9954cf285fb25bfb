"""Count, mean and scatter matrix of feature vectors, in fp64, block by block. Pure.

Blocks are centred on their own mean and merged as in Chan, Golub and LeVeque, "Updating formulae
and a pairwise algorithm for computing sample variances" (1979). A mean that is large against the
standard deviation therefore costs no precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from distinit.pipeline.cache.digest import StoredRows
from distinit.pipeline.cache.encoding import decode
from distinit.schemas.teacher import TeacherIdentity, TeacherRecord

__all__ = [
    "MAX_COVARIANCE_CHANNELS",
    "FeatureMoments",
    "answered_vectors",
    "merged",
    "moments_of",
    "moments_of_rows",
    "scatter_shape",
]

MAX_COVARIANCE_CHANNELS = 4_096
"""With more channels, only the diagonal of the scatter matrix is computed."""

_BLOCK_VECTORS = 1_024


@dataclass(frozen=True, slots=True)
class FeatureMoments:
    """Moments of some vectors.

    Attributes:
        vectors: How many they are.
        mean_C: fp64 [C].
        scatter: Sum of the products of deviations from the mean, fp64 [C, C]; only its diagonal,
            [C], for more than ``MAX_COVARIANCE_CHANNELS``.
    """

    vectors: int
    mean_C: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, channels: int) -> FeatureMoments:
        """Moments of no vectors."""
        return cls(0, np.zeros(channels), np.zeros(scatter_shape(channels)))


def scatter_shape(channels: int) -> tuple[int, ...]:
    """Shape of the scatter matrix, or of its diagonal."""
    return (channels, channels) if channels <= MAX_COVARIANCE_CHANNELS else (channels,)


def moments_of(vectors_NC: np.ndarray) -> FeatureMoments:
    """Moments of a block of at least one vector."""
    x_NC = vectors_NC.astype(np.float64)
    mean_C = x_NC.mean(axis=0)
    x_NC -= mean_C
    if x_NC.shape[1] <= MAX_COVARIANCE_CHANNELS:
        return FeatureMoments(len(x_NC), mean_C, x_NC.T @ x_NC)
    return FeatureMoments(len(x_NC), mean_C, np.square(x_NC).sum(axis=0))


def merged(a: FeatureMoments, b: FeatureMoments) -> FeatureMoments:
    """Moments of the vectors of both."""
    if not (a.vectors and b.vectors):
        return a if a.vectors else b
    vectors = a.vectors + b.vectors
    delta_C = b.mean_C - a.mean_C
    weight = a.vectors * (b.vectors / vectors)
    between = np.outer(delta_C, delta_C) if a.scatter.ndim == 2 else np.square(delta_C)
    between *= weight
    between += a.scatter
    between += b.scatter
    return FeatureMoments(vectors, a.mean_C + delta_C * (b.vectors / vectors), between)


def moments_of_rows(
    record: TeacherRecord, arrays: Mapping[str, StoredRows], row_N: np.ndarray
) -> FeatureMoments:
    """Moments over the rows ``row_N`` of the stored arrays of a feature teacher, in row order.

    Rows without an output of the teacher are left out. The result may hold values that are not
    finite if the stored values are not.
    """
    identity = record.identity
    step = max(_BLOCK_VECTORS // identity.cells, 1)
    total = FeatureMoments.empty(identity.channels)
    for start in range(0, len(row_N), step):
        part_N = row_N[start : start + step]
        stored = {name: rows[part_N] for name, rows in arrays.items()}
        total = _with_block(total, record, stored)
    return total


def _with_block(
    total: FeatureMoments, record: TeacherRecord, stored: Mapping[str, np.ndarray]
) -> FeatureMoments:
    with np.errstate(invalid="ignore", over="ignore"):
        values_NC = decode(stored, record.encoding, record.identity.classes)
        vectors_MC = answered_vectors(values_NC, record.identity)
        return merged(total, moments_of(vectors_MC)) if len(vectors_MC) else total


def answered_vectors(values_NC: np.ndarray, identity: TeacherIdentity) -> np.ndarray:
    """The vectors of decoded rows: one per cell, [M, channels], without rows that are all NaN."""
    answered_N = ~np.isnan(values_NC).all(axis=1)
    return values_NC[answered_N].reshape(-1, identity.channels)
