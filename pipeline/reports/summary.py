"""From a finished scan to the figures of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distinit.pipeline.reports.scan import ConfidenceScan
from distinit.schemas.audit import (
    AuditConfig,
    ClassCount,
    ConfidenceAudit,
    EntropyHistogram,
    FrameSample,
    KeptFraction,
    QuantileThreshold,
    VideoEntropy,
)

__all__ = ["HISTOGRAM_BINS", "VideoNames", "class_name", "summarise"]

HISTOGRAM_BINS = 64
KEEP_FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, slots=True)
class VideoNames:
    """video_id and path of every video, in the order of videos.parquet."""

    ids: Sequence[str]
    paths: Sequence[str]


def class_name(label_names: Sequence[str], index: int) -> str:
    """The label, or ``class 17`` where the teacher names none."""
    return label_names[index] if index < len(label_names) else f"class {index}"


def summarise(
    scan: ConfidenceScan, videos: VideoNames, label_names: Sequence[str], config: AuditConfig
) -> ConfidenceAudit:
    """All figures of one teacher. The scan must have seen at least one frame."""
    edges, counts = scan.histogram(HISTOGRAM_BINS)
    q1, median, q3 = (scan.quantile_nats(fraction) for fraction in (0.25, 0.5, 0.75))
    surest, unsurest = _video_tables(scan, videos, config.table_rows)
    return ConfidenceAudit(
        frames=scan.frames,
        mean_entropy_nats=float(scan.video_entropy_sum.sum()) / scan.frames,
        quartiles_nats=(q1, median, q3),
        highest_possible_nats=scan.highest_nats,
        mean_top1_probability=min(1.0, scan.probability_sum / scan.frames),
        histogram=EntropyHistogram(edges_nats=edges.tolist(), frames=counts.tolist()),
        kept=_kept(scan),
        thresholds=tuple(
            QuantileThreshold(keep_fraction=share, max_entropy_nats=scan.quantile_nats(share))
            for share in KEEP_FRACTIONS
        ),
        classes_seen=int(np.count_nonzero(scan.class_frames)),
        top_classes=_top_classes(scan, label_names, config.top_classes),
        most_confident_frames=_samples(scan, videos, label_names, config.sheet_frames, True),
        least_confident_frames=_samples(scan, videos, label_names, config.sheet_frames, False),
        most_confident_videos=surest,
        least_confident_videos=unsurest,
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
    """Classes that are most often the most probable one; ties in index order."""
    order = np.argsort(-scan.class_frames, kind="stable")[:count].tolist()
    return tuple(
        ClassCount(
            class_index=index,
            name=class_name(label_names, index),
            frames=int(scan.class_frames[index]),
            fraction=float(scan.class_frames[index] / scan.frames),
        )
        for index in order
        if scan.class_frames[index] > 0
    )


def _samples(
    scan: ConfidenceScan, videos: VideoNames, label_names: Sequence[str], count: int, surest: bool
) -> tuple[FrameSample, ...]:
    return tuple(
        FrameSample(
            video_id=videos.ids[extreme.video],
            path=videos.paths[extreme.video],
            frame_index=extreme.frame_index,
            entropy_nats=extreme.entropy_nats,
            top1_class=extreme.top1_class,
            top1_name=class_name(label_names, extreme.top1_class),
            top1_probability=min(1.0, extreme.top1_probability),
        )
        for extreme in scan.extremes(count, surest=surest)
    )


def _video_tables(
    scan: ConfidenceScan, videos: VideoNames, count: int
) -> tuple[tuple[VideoEntropy, ...], tuple[VideoEntropy, ...]]:
    """(most confident first, least confident first), ``count`` each at most, none in both."""
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
