"""Turns a finished scan into the statistics of the report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.confident_half import confident_half
from distinit.pipeline.audit.outliers import outlier_frames
from distinit.pipeline.audit.quantiles import KEEP_FRACTIONS, EntropyQuantiles
from distinit.pipeline.audit.samples import VideoNames, class_name, frame_samples
from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.schemas.audit import (
    AuditConfig,
    ClassCount,
    ConfidenceAudit,
    EntropyHistogram,
    KeptFraction,
    QuantileThreshold,
    ThresholdCurve,
    VideoEntropy,
)

__all__ = ["summarise", "threshold_curve"]


def summarise(
    scan: ConfidenceScan,
    quantiles: EntropyQuantiles,
    clip_weight_B: NDArray[np.float64],
    videos: VideoNames,
    label_names: Sequence[str],
    config: AuditConfig,
) -> ConfidenceAudit:
    """All statistics of one teacher. The scan must have counted at least one frame.

    ``clip_weight_B``: weight of the drawn clips per bin of entropy.
    """
    edges, counts = scan.histogram()
    most_confident, least_confident = _video_tables(scan, videos, config.table_rows)
    return ConfidenceAudit(
        frames=scan.frames,
        mean_entropy_nats=float(scan.video_entropy_sum_nats.sum()) / scan.frames,
        quartiles_nats=quantiles.quartiles_nats,
        highest_possible_nats=scan.highest_nats,
        mean_top1_probability=min(1.0, scan.probability_sum / scan.frames),
        histogram=EntropyHistogram(edges_nats=edges.tolist(), frames=counts.tolist()),
        kept=_kept(scan),
        thresholds=tuple(
            QuantileThreshold(keep_fraction=fraction, max_entropy_nats=threshold_nats)
            for fraction, threshold_nats in zip(
                KEEP_FRACTIONS, quantiles.thresholds_nats, strict=True
            )
        ),
        curve=threshold_curve(scan, clip_weight_B),
        classes_seen=int(np.count_nonzero(scan.class_frames)),
        top_classes=_top_classes(scan, label_names, config.top_classes),
        most_confident_frames=frame_samples(
            scan.extremes(config.sheet_frames, most_confident=True), videos, label_names
        ),
        least_confident_frames=frame_samples(
            scan.extremes(config.sheet_frames, most_confident=False), videos, label_names
        ),
        outlier_frames=outlier_frames(scan, videos, label_names, config.sheet_frames),
        confident_half=confident_half(scan, label_names, config.top_classes),
        most_confident_videos=most_confident,
        least_confident_videos=least_confident,
    )


def threshold_curve(scan: ConfidenceScan, clip_weight_B: NDArray[np.float64]) -> ThresholdCurve:
    """What each edge of the bins keeps; ``clip_weight_B`` is all 0 if there are no clips."""
    bins, total = scan.bins, float(clip_weight_B.sum())
    lowest_V = scan.most_confident.entropies_nats()
    video_B = np.bincount(bins.bins_of(lowest_V[~np.isnan(lowest_V)]), minlength=bins.count)
    seen_C = scan.class_frames > 0
    class_B = np.bincount((scan.joint_CB[seen_C] > 0).argmax(axis=1), minlength=bins.count)
    clips = np.minimum(np.cumsum(clip_weight_B) / total, 1).tolist() if total else []
    return ThresholdCurve(
        step_nats=bins.step_nats,
        frames=tuple(np.cumsum(scan.bin_frames).tolist()),
        clips=tuple(clips),
        videos=tuple(np.cumsum(video_B).tolist()),
        classes=tuple(np.cumsum(class_B).tolist()),
    )


def _kept(scan: ConfidenceScan) -> tuple[KeptFraction, ...]:
    return tuple(
        KeptFraction(max_entropy_nats=threshold, frames=frames, fraction=frames / scan.frames)
        for threshold, frames in zip(
            scan.thresholds_nats.tolist(), scan.kept_frames.tolist(), strict=True
        )
    )


def _top_classes(
    scan: ConfidenceScan, label_names: Sequence[str], count: int
) -> tuple[ClassCount, ...]:
    """The classes that are most often the most probable one; ties are sorted by class index."""
    frames_C = scan.class_frames
    order = np.argsort(-frames_C, kind="stable")[:count].tolist()
    return tuple(
        ClassCount(
            class_index=index,
            name=class_name(label_names, index),
            frames=int(frames_C[index]),
            fraction=float(frames_C[index] / scan.frames),
        )
        for index in order
        if frames_C[index] > 0
    )


def _video_tables(
    scan: ConfidenceScan, videos: VideoNames, count: int
) -> tuple[tuple[VideoEntropy, ...], tuple[VideoEntropy, ...]]:
    """(most confident first, least confident first): at most ``count`` videos each.

    No video is in both tables.
    """
    numbers, means = scan.mean_video_nats()
    rows = tuple(
        VideoEntropy(
            video_id=videos.ids[number],
            path=videos.paths[number],
            frames=int(scan.video_frames[number]),
            mean_entropy_nats=mean,
        )
        for number, mean in _both_ends(numbers.tolist(), means.tolist(), count)
    )
    first = min(count, (len(rows) + 1) // 2)
    return rows[:first], rows[first:][::-1]


def _both_ends(numbers: list[int], means: list[float], count: int) -> list[tuple[int, float]]:
    pairs = list(zip(numbers, means, strict=True))
    return pairs if len(pairs) <= 2 * count else pairs[:count] + pairs[-count:]
