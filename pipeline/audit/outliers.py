"""The frame of each video whose entropy is furthest from the video's other frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.runs import VideoExtremes
from distinit.pipeline.audit.samples import VideoNames, frame_samples
from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.schemas.audit import OutlierFrame

__all__ = ["LEAST_DEVIATIONS", "LEAST_FRAMES", "LEAST_SPREAD_NATS", "outlier_frames"]

LEAST_FRAMES = 8
"""Frames of a video that can have an outlier."""
LEAST_DEVIATIONS = 3.0
LEAST_SPREAD_NATS = 0.1
"""Smaller standard deviations count as this: in a still video, any change would be far away."""


def outlier_frames(
    scan: ConfidenceScan, videos: VideoNames, label_names: Sequence[str], count: int
) -> tuple[OutlierFrame, ...]:
    """At most one frame of each video, the furthest first; at most ``count``.

    The distance of a frame is taken from the mean of the other frames of its video, in their
    standard deviations. The furthest frame is the one with the lowest or with the highest entropy,
    so the sums and extremes of the scan suffice. No frame of fewer than LEAST_DEVIATIONS counts.
    """
    distances, means = zip(
        *(_distances(scan, e.entropies_nats()) for e in _ends(scan)), strict=True
    )
    deviations_SV = np.array(distances)
    side_V = deviations_SV.argmax(axis=0)
    furthest_V = deviations_SV.max(axis=0)
    order = np.argsort(-furthest_V, kind="stable")[:count].tolist()
    chosen = [video for video in order if furthest_V[video] >= LEAST_DEVIATIONS]
    samples = frame_samples(
        [_ends(scan)[side_V[video]].of(video) for video in chosen], videos, label_names
    )
    return tuple(
        OutlierFrame(
            **dict(sample),
            others_mean_nats=float(means[side_V[video]][video]),
            deviations=float(furthest_V[video]),
        )
        for sample, video in zip(samples, chosen, strict=True)
    )


def _ends(scan: ConfidenceScan) -> tuple[VideoExtremes, VideoExtremes]:
    return scan.most_confident, scan.least_confident


def _distances(
    scan: ConfidenceScan, entropy_nats_V: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(distance in deviations, mean of the others in nats) of one frame of each video: [V], [V]."""
    enough_V = scan.video_frames >= LEAST_FRAMES
    entropy_V = np.where(enough_V, entropy_nats_V, 0).astype(np.float64)
    others_V = np.maximum(scan.video_frames - 1, 1)
    mean_V = (scan.video_entropy_sum_nats - entropy_V) / others_V
    square_V = (scan.video_square_sum - entropy_V**2) / others_V - mean_V**2
    spread_V = np.maximum(np.sqrt(np.maximum(square_V, 0)), LEAST_SPREAD_NATS)
    return np.where(enough_V, np.abs(entropy_V - mean_V) / spread_V, 0), mean_V
