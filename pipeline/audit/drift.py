"""How far the same teacher's outputs in two caches differ, with a bootstrap over videos."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.bins import COARSE_BINS, EntropyBins
from distinit.pipeline.audit.runs import VideoRuns
from distinit.pipeline.audit.units import ConfidenceRows
from distinit.schemas.audit_comparisons import Distance

__all__ = ["FEWEST_VIDEOS", "DriftScan", "class_distance", "entropy_distance"]

_RESAMPLES = 200
_RUNS_AT_ONCE = 512  # videos of one unit: 512 x 1,000 classes take 4 MB
_INTERVAL = (0.025, 0.975)
FEWEST_VIDEOS = 10
"""Resamples of fewer videos say nothing about other ones, and some of them are empty."""

Floats = NDArray[np.float64]


class DriftScan:
    """Histograms of one teacher, and of resamples of its videos.

    Frames of one video are alike, so whole videos are drawn: in each resample, a video counts as
    often as a Poisson number with mean 1 says. The first row is the cache itself.
    """

    def __init__(self, videos: int, classes: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._weight_RV = rng.poisson(1, (_RESAMPLES + 1, videos)).astype(np.uint8)
        self._weight_RV[0] = 1
        self.bins = EntropyBins.of(classes)
        self.entropy_RK = np.zeros((_RESAMPLES + 1, COARSE_BINS))
        self.class_RC = np.zeros((_RESAMPLES + 1, classes))
        self._has_rows_V = np.zeros(videos, np.bool_)

    def add(self, rows: ConfidenceRows) -> None:
        """Count the rows of one unit."""
        if not len(rows.video_N):
            return
        runs = VideoRuns.of(rows.video_N)
        self._has_rows_V[runs.video_R] = True
        bin_N = self.bins.bins_of(rows.entropy_nats_N) // self.bins.merged
        run_N = np.repeat(np.arange(len(runs.video_R)), runs.length_R)
        for first in range(0, len(runs.video_R), _RUNS_AT_ONCE):
            videos = runs.video_R[first : first + _RUNS_AT_ONCE]
            of = slice(*np.searchsorted(run_N, [first, first + _RUNS_AT_ONCE]))
            weight_RM = self._weight_RV[:, videos].astype(np.float64)
            for sums, value_N in ((self.entropy_RK, bin_N), (self.class_RC, rows.top1_class_N)):
                width = sums.shape[1]
                place_N = (run_N[of] - first) * width + value_N[of]
                counts = np.bincount(place_N, minlength=len(videos) * width)
                sums += weight_RM @ counts.reshape(len(videos), width)

    @property
    def frames(self) -> int:
        """Frames of the cache itself."""
        return int(self.entropy_RK[0].sum())

    @property
    def videos(self) -> int:
        """Videos with rows."""
        return int(self._has_rows_V.sum())


def entropy_distance(first: DriftScan, other: DriftScan) -> Distance:
    """Wasserstein distance of the entropies, nats; both teachers have as many classes."""
    width_nats = first.bins.step_nats * first.bins.merged
    here_RK, there_RK = (np.cumsum(_shares(s.entropy_RK), axis=1) for s in (first, other))
    return _distance(here_RK, there_RK, width_nats, min(first.videos, other.videos))


def class_distance(first: DriftScan, other: DriftScan) -> Distance:
    """Total variation of the shares of the classes; both teachers have as many classes."""
    shares = _shares(first.class_RC), _shares(other.class_RC)
    return _distance(*shares, 0.5, min(first.videos, other.videos))


def _shares(counts_RK: Floats) -> Floats:
    shares_RK: Floats = counts_RK / np.maximum(counts_RK.sum(axis=1, keepdims=True), 1)
    return shares_RK


def _distance(first_RK: Floats, other_RK: Floats, scale: float, videos: int) -> Distance:
    """``scale`` times the sum of the absolute differences.

    ``noise`` is the distance of resamples of which each cache's own shares were subtracted: all
    that is left is which videos were drawn, from as many videos as each cache has.
    """
    difference_RK = first_RK - other_RK
    between_R = scale * np.abs(difference_RK).sum(axis=1)
    value = float(between_R[0])
    if videos < FEWEST_VIDEOS:
        return Distance(value=value)
    # A resample without any video has no shares.
    drawn_R = (first_RK.any(axis=1) & other_RK.any(axis=1))[1:]
    by_chance_R = scale * np.abs(difference_RK[1:] - difference_RK[0]).sum(axis=1)
    low, high = np.quantile(between_R[1:][drawn_R], _INTERVAL).tolist()
    noise = float(np.quantile(by_chance_R[drawn_R], _INTERVAL[1]))
    return Distance(value=value, low=low, high=high, noise=noise)
