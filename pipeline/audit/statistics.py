"""Reads a cache once, and collects all statistics that the audit needs of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.drift import DriftScan
from distinit.pipeline.audit.labels import LabelScan, labels_of
from distinit.pipeline.audit.pairs import PairScan
from distinit.pipeline.audit.pictures import PictureScan
from distinit.pipeline.audit.samples import VideoNames
from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.pipeline.audit.units import UnitRows, read_units
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.derived import find_texts
from distinit.pipeline.progress import Progress

__all__ = ["CacheStatistics", "read_statistics"]


_COMPARED = 4  # teachers that are compared with one another


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What one pass over the tables of a cache has found."""

    cache: TargetCache
    videos: VideoNames
    scans: Mapping[str, ConfidenceScan]
    """By teacher id; only of teachers that store logits."""
    pictures: PictureScan
    pairs: Mapping[tuple[str, str], PairScan]
    """By the ids of two teachers; only of the first teachers, if there are many."""
    labels: Mapping[str, LabelScan]
    """By teacher id; empty without labels."""
    drifts: Mapping[str, DriftScan]
    """By teacher id; empty if no other cache is compared."""


def read_statistics(
    cache: TargetCache,
    progress: Progress,
    *,
    labels: Mapping[str, str] | None = None,
    compared: int | None = None,
) -> CacheStatistics:
    """Read the tables of all teachers that store logits, without videos that the corpus has lost.

    ``labels``: path of a video -> label. ``compared``: number of this cache among those that are
    compared with one another; None if there is only one. Raises CacheCorruptError for a damaged
    table.
    """
    statistics = _empty(cache, labels, compared)
    in_corpus_V = cache.videos.column("in_corpus").to_numpy()
    gone = np.flatnonzero(~in_corpus_V).tolist()
    numbers = {video_id: number for number, video_id in enumerate(statistics.videos.ids)}
    frames = int(statistics.pictures.frames_V[in_corpus_V].sum()) if statistics.scans else 0
    progress.start("audit", total=frames, unit="frames")
    for unit in read_units(cache, list(statistics.scans), numbers, gone):
        _add(statistics, unit)
        progress.advance(len(unit.frames.row_N))
    progress.finish()
    return statistics


def _empty(
    cache: TargetCache, labels: Mapping[str, str] | None, compared: int | None
) -> CacheStatistics:
    """Statistics to which no unit was added yet."""
    ids = cache.videos.column("video_id").to_pylist()
    videos = VideoNames(ids, cache.videos.column("path").to_pylist())
    teachers = {
        name: record.identity
        for name, record in sorted(cache.teachers.items())
        if record.identity.target == "logits"
    }
    return CacheStatistics(
        cache,
        videos,
        scans={name: ConfidenceScan(len(ids), t.classes) for name, t in teachers.items()},
        pictures=PictureScan(*_rows_of_videos(cache, ids)),
        pairs={
            (first, second): PairScan(cache.teachers[first], cache.teachers[second], len(ids))
            for first, second in combinations(list(teachers)[:_COMPARED], 2)
        },
        labels={
            name: LabelScan(labels_of(labels, videos.paths, t.label_names, t.classes), t.classes)
            for name, t in teachers.items()
            if labels is not None
        },
        drifts={
            name: DriftScan(len(ids), t.classes, compared)
            for name, t in teachers.items()
            if compared is not None
        },
    )


def _add(statistics: CacheStatistics, unit: UnitRows) -> None:
    same_N = statistics.pictures.add(unit.frames)
    for name, rows in unit.teachers.items():
        scan = statistics.scans[name]
        scan.add(rows)
        if len(rows.row_N) == len(same_N) + 1:
            scan.add_same_pictures(rows, same_N)
        for others in (statistics.labels, statistics.drifts):
            if name in others:
                others[name].add(rows)
    for (first, second), pair in statistics.pairs.items():
        if first in unit.teachers and second in unit.teachers:
            pair.add(unit.teachers[first], unit.teachers[second])


def _rows_of_videos(
    cache: TargetCache, ids: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first row, number of rows) of each video of videos.parquet; (-1, 0) for one without rows."""
    place_V, found_V = find_texts(
        cache.index.video_ids, np.array([video_id.encode() for video_id in ids], np.bytes_)
    )
    first_V, count_V = (
        np.where(found_V, np.asarray(column)[np.where(found_V, place_V, 0)], empty)
        for column, empty in ((cache.index.first_row, -1), (cache.index.row_count, 0))
    )
    return first_V, count_V
