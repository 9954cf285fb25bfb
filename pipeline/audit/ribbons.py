"""The entropy of single videos over time, in a bounded number of points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.pipeline.cache.reader import TargetCache

__all__ = ["POINTS", "Ribbon", "chosen_videos", "read_ribbon"]

POINTS = 64


@dataclass(frozen=True, slots=True)
class Ribbon:
    """The entropy of one video along time, in P points: means over equal numbers of rows."""

    video: int
    """Position of the video in videos.parquet."""
    entropy_nats_P: NDArray[np.float32]
    """NaN where the teacher has no usable output."""
    frame_P: NDArray[np.int64]
    """Index of the first frame of each point."""
    last_frame: int


def chosen_videos(scan: ConfidenceScan, extremes: int, limit: int) -> list[int]:
    """Videos with rows, at most ``limit``: the first and last by mean entropy, those that change
    most, ``extremes`` of each kind; then evenly spaced ones by mean entropy."""
    by_mean, _ = scan.mean_video_nats()
    spread_V = scan.video_spread_nats()
    by_spread = by_mean[np.argsort(-spread_V[by_mean], kind="stable")]
    ends = (*by_mean[:extremes], *by_mean[::-1][:extremes], *by_spread[:extremes])
    chosen = dict.fromkeys(int(video) for video in ends)
    step = max(1, -(-len(by_mean) // max(1, limit - len(chosen))))
    chosen |= dict.fromkeys(int(video) for video in by_mean[::step])
    return list(chosen)[:limit]


def read_ribbon(cache: TargetCache, teacher_id: str, video: int, video_id: str) -> Ribbon:
    """Read the stored entropies of one video. Raises CacheError for a video without rows."""
    row_N = cache.rows_of(video_id)
    entropy_N = cache.targets(teacher_id).entropy_nats[row_N]
    frame_N = cache.index.frame_index[row_N].astype(np.int64)
    cache.index.release_pages()  # the videos of a page are spread over the whole index
    first_P = np.unique(np.arange(POINTS) * len(row_N) // POINTS)
    count_P = np.add.reduceat(~np.isnan(entropy_N), first_P, dtype=np.int64)
    sum_P = np.add.reduceat(np.nan_to_num(entropy_N, nan=0.0), first_P, dtype=np.float64)
    mean_P = np.divide(sum_P, count_P, np.full(len(first_P), np.nan), where=count_P > 0)
    return Ribbon(video, mean_P.astype(np.float32), frame_N[first_P], int(frame_N[-1]))
