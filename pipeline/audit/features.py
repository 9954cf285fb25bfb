"""Norms, effective rank and collapsed dimensions of a teacher that stores features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distinit.pipeline.cache.feature_moments import answered_vectors
from distinit.pipeline.cache.feature_statistics import FeatureStatistics
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.teacher_targets import TeacherTargets
from distinit.pipeline.progress import Progress
from distinit.schemas.audit_features import FeatureAudit, NormHistogram
from distinit.schemas.errors import CacheCorruptError, CacheError

__all__ = ["COLLAPSED_SHARE", "NormScan", "audit_features", "spectrum_of"]

COLLAPSED_SHARE = 1e-3
"""Of the median standard deviation: a channel below it has collapsed."""

_BLOCK_BYTES = 1 << 24
_KEPT_BITS = 12  # of the 23 of an fp32 mantissa that a bin does not tell apart
_SPECTRUM = 512
_HISTOGRAM_BINS = 40


class NormScan:
    """Counts norms in bins that are .05 % wide, so that memory does not grow with the cache.

    The bits of positive fp32 numbers are in the order of the numbers: a bin is their upper 20 bits.
    """

    def __init__(self) -> None:
        self.vectors = 0
        self.smallest, self.largest = np.inf, 0.0
        self._counts_B = np.zeros(1 << (31 - _KEPT_BITS), np.int64)

    def add(self, vectors_NC: np.ndarray) -> None:
        """Count some vectors, fp32 [N, C]."""
        if not len(vectors_NC):
            return
        norm_N = np.sqrt(np.einsum("nc,nc->n", vectors_NC, vectors_NC, dtype=np.float64))
        self.vectors += len(norm_N)
        self.smallest = min(self.smallest, float(norm_N.min()))
        self.largest = max(self.largest, float(norm_N.max()))
        largest = np.finfo(np.float32).max
        bin_N = norm_N.clip(max=largest).astype(np.float32).view(np.int32) >> _KEPT_BITS
        self._counts_B += np.bincount(bin_N, minlength=len(self._counts_B))

    def median(self) -> float:
        """The middle of the bin of the median, within the smallest and the largest norm."""
        at = int(np.searchsorted(np.cumsum(self._counts_B), self.vectors / 2))
        middle = float(self._middles(np.array([at]))[0])
        return min(max(middle, self.smallest), self.largest)

    def histogram(self) -> NormHistogram:
        """The counts in even bins from the smallest to the largest norm."""
        used_B = np.flatnonzero(self._counts_B)
        span = (self.smallest, max(self.largest, 1.001 * self.smallest + 1e-12))
        middle_B = self._middles(used_B).clip(*span)
        weights = self._counts_B[used_B]
        counts, edges = np.histogram(middle_B, _HISTOGRAM_BINS, range=span, weights=weights)
        return NormHistogram(edges=tuple(edges.tolist()), vectors=tuple(counts.astype(int)))

    def _middles(self, bins: np.ndarray) -> np.ndarray:
        bits = (bins.astype(np.int32) << _KEPT_BITS) + (1 << (_KEPT_BITS - 1))
        return bits.view(np.float32).astype(np.float64)


def audit_features(cache: TargetCache, teacher_id: str, progress: Progress) -> FeatureAudit | None:
    """What the rows and the stored statistics of a feature teacher say; None without any row.

    Raises CacheCorruptError for rows or statistics that are damaged.
    """
    targets, scan = cache.targets(teacher_id), NormScan()
    identity = targets.record.identity
    progress.start(f"norms of {teacher_id}", cache.manifest.row_space.rows, "frames")
    for row_N in _blocks(cache, targets):
        scan.add(answered_vectors(targets.logits(row_N), identity))
        progress.advance(len(row_N))
    progress.finish()
    if not scan.vectors:
        return None
    return FeatureAudit(
        vectors=scan.vectors,
        channels=identity.channels,
        norm_min=scan.smallest,
        norm_median=scan.median(),
        norm_max=scan.largest,
        norms=scan.histogram(),
        **_of_statistics(targets),
    )


def _blocks(cache: TargetCache, targets: TeacherTargets) -> Iterator[np.ndarray]:
    """The rows in use of all units that the teacher has, in blocks of bounded size."""
    capacity = targets.unit_rows
    step = max(1, _BLOCK_BYTES // (4 * targets.record.identity.classes))
    for unit in np.flatnonzero(targets.committed_units).tolist():
        first = unit * capacity
        used_N = np.asarray(cache.index.video_number[first : first + capacity]) >= 0
        row_N = first + np.flatnonzero(used_N)
        for start in range(0, len(row_N), step):
            yield row_N[start : start + step]


def _of_statistics(targets: TeacherTargets) -> dict[str, Any]:
    """The fields that come from the statistics of the cache; empty if it has none."""
    statistics: FeatureStatistics | None = None
    try:
        statistics = targets.feature_statistics
    except CacheCorruptError:
        raise
    except CacheError:
        return {}
    limit = COLLAPSED_SHARE * float(np.median(statistics.std_C))
    collapsed_C = (statistics.std_C < limit) | (statistics.std_C == 0)
    found: dict[str, Any] = {
        "collapsed_dimensions": int(collapsed_C.sum()),
        "collapsed_std": limit,
    }
    if statistics.has_covariance:
        share_C = spectrum_of(statistics.covariance_CC)
        found["spectrum"] = tuple(share_C[:_SPECTRUM].tolist())
        if share_C.any():
            positive = share_C[share_C > 0]
            found["effective_rank"] = float(np.exp(-(positive * np.log(positive)).sum()))
            found["participation_ratio"] = float(1 / np.square(share_C).sum())
    return found


def spectrum_of(covariance_CC: np.ndarray) -> np.ndarray:
    """Shares of the eigenvalues, largest first; zeros if nothing varies."""
    value_C = np.linalg.eigvalsh(covariance_CC)[::-1].clip(min=0)
    total = value_C.sum()
    return value_C / total if total > 0 else value_C
