"""What the page of an audit shows beyond ``audit.json``: classes, videos over time, frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distinit.pipeline.audit.bins import COARSE_BINS
from distinit.pipeline.audit.class_bins import class_bins
from distinit.pipeline.audit.ribbons import Ribbon, chosen_videos, read_ribbon
from distinit.pipeline.audit.samples import class_name, frame_samples
from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.pipeline.audit.statistics import CacheStatistics
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.reports.details import (
    FramePicture,
    PairPictures,
    TeacherDetails,
    VideoRibbon,
)
from distinit.pipeline.reports.frame_pictures import FrameReader
from distinit.schemas.audit import AuditConfig, ConfidenceAudit, FrameSample, OutlierFrame

__all__ = ["pair_pictures", "teacher_details"]

# The page of two teachers must stay below 8 MB, whatever the size of the cache.
_CLASS_ENTRIES = 360_000
_RIBBONS = 3_000
_NEAR_PER_BIN = 2
_PICTURES_PER_VIDEO = 4
_VIDEOS_WITH_PICTURES = 60
_DISAGREEMENTS, _OTHER_TOP = 12, 5


def teacher_details(
    statistics: CacheStatistics,
    teacher_id: str,
    confidence: ConfidenceAudit,
    store: FrameStore | None,
    config: AuditConfig,
) -> TeacherDetails:
    """The details of one teacher that stores logits.

    Raises FrameStoreError and CacheCorruptError for damaged data.
    """
    scan, cache = statistics.scans[teacher_id], statistics.cache
    share = max(1, len(statistics.scans))
    names = cache.teachers[teacher_id].identity.label_names
    frames_C = scan.class_frames
    reader = None
    if store is not None:
        reader = FrameReader(cache, store, teacher_id, statistics.videos)
    shown = chosen_videos(scan, config.table_rows, _RIBBONS // share)
    return TeacherDetails(
        class_names=[class_name(names, index) for index in range(len(frames_C))],
        class_frames_C=frames_C,
        class_mean_nats_C=np.divide(
            scan.class_entropy_sum_nats,
            frames_C,
            np.full(len(frames_C), np.nan),
            where=frames_C > 0,
        ),
        classes=class_bins(scan, _CLASS_ENTRIES // share),
        ribbons=_ribbons(statistics, teacher_id, shown, reader, share),
        ribbons_left_out=int(np.count_nonzero(scan.video_frames)) - len(shown),
        near=_pictures(reader, _near(statistics, scan, names)),
        most_confident=_pictures(reader, confidence.most_confident_frames),
        least_confident=_pictures(reader, confidence.least_confident_frames),
        outliers=_outliers(reader, confidence.outlier_frames),
    )


def _pictures(reader: FrameReader | None, samples: Sequence[FrameSample]) -> Sequence[FramePicture]:
    return () if reader is None else reader.pictures(samples)


def _outliers(
    reader: FrameReader | None, outliers: Sequence[OutlierFrame]
) -> Sequence[FramePicture]:
    notes = {
        (outlier.video_id, outlier.frame_index): f"others {outlier.others_mean_nats:.2f} nats, "
        f"{outlier.deviations:.1f} deviations"
        for outlier in outliers
    }
    return [
        replace(picture, note=notes[picture.sample.video_id, picture.sample.frame_index])
        for picture in _pictures(reader, outliers)
    ]


def pair_pictures(
    statistics: CacheStatistics, names: tuple[str, str], store: FrameStore | None
) -> PairPictures:
    """Frames that only one of two teachers is sure of; none without a frame store."""
    if store is None:
        return PairPictures()
    cache, pair = statistics.cache, statistics.pairs[names]
    readers = [FrameReader(cache, store, name, statistics.videos) for name in names]
    sheets = []
    for side, extremes in enumerate((pair.only_first, pair.only_second)):
        labels = cache.teachers[names[side]].identity.label_names
        samples = frame_samples(extremes.lowest(_DISAGREEMENTS), statistics.videos, labels)
        pictures = readers[side].pictures(samples)
        others = readers[1 - side].pictures([picture.sample for picture in pictures])
        sheets.append(
            [
                replace(picture, other=other.top[:_OTHER_TOP])
                for picture, other in zip(pictures, others, strict=True)
            ]
        )
    return PairPictures(*sheets)


def _ribbons(
    statistics: CacheStatistics,
    teacher_id: str,
    videos: Sequence[int],
    reader: FrameReader | None,
    share: int,
) -> list[VideoRibbon]:
    scan, names = statistics.scans[teacher_id], statistics.videos
    spread_V = scan.video_spread_nats()
    ribbons = []
    for place, video in enumerate(videos):
        ribbon = read_ribbon(statistics.cache, teacher_id, video, names.ids[video])
        pictures: Sequence[FramePicture] = ()
        if reader is not None and place < _VIDEOS_WITH_PICTURES // share:
            pictures = reader.of_video(video, _spaced_frames(ribbon))
        ribbons.append(
            VideoRibbon(
                path=names.paths[video],
                frames=int(scan.video_frames[video]),
                mean_nats=float(scan.video_entropy_sum_nats[video] / scan.video_frames[video]),
                spread_nats=float(spread_V[video]),
                ribbon=ribbon,
                cuts=statistics.pictures.cuts.get(video, ()),
                pictures=pictures,
            )
        )
    return ribbons


def _spaced_frames(ribbon: Ribbon) -> list[int]:
    """A few evenly spaced frames of a video."""
    points = len(ribbon.frame_P)
    middles = np.unique(
        (np.arange(_PICTURES_PER_VIDEO) * 2 + 1) * points // _PICTURES_PER_VIDEO // 2
    )
    found: list[int] = ribbon.frame_P[middles].tolist()
    return found


def _near(
    statistics: CacheStatistics, scan: ConfidenceScan, names: Sequence[str]
) -> list[FrameSample]:
    """A few frames per coarse bin of entropy, by entropy.

    The extremes of a video are taken where no frame that was drawn at random lies in the bin.
    """
    sources = (scan.any_frame, scan.most_confident, scan.least_confident)
    entropy_SV = np.stack([source.entropies_nats() for source in sources])
    source_K, video_K = np.nonzero(~np.isnan(entropy_SV))
    bin_K = scan.bins.bins_of(entropy_SV[source_K, video_K]) // scan.bins.merged
    chosen = {
        (extreme.video, extreme.frame_index): extreme
        for coarse in range(COARSE_BINS)
        for place in np.flatnonzero(bin_K == coarse)[:_NEAR_PER_BIN]
        for extreme in [sources[source_K[place]].of(int(video_K[place]))]
    }
    extremes = list(chosen.values())
    extremes.sort(key=lambda frame: frame.entropy_nats)
    return list(frame_samples(extremes, statistics.videos, names))
