"""Compares a cache with other ones: the same teachers, over other videos."""

from __future__ import annotations

from collections.abc import Iterator

from distinit.pipeline.audit.drift import class_distance, entropy_distance
from distinit.pipeline.audit.statistics import CacheStatistics, read_statistics
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.progress import Progress
from distinit.schemas.audit import AuditConfig
from distinit.schemas.audit_comparisons import CacheDrift
from distinit.schemas.errors import CacheError

__all__ = ["cache_drifts"]


def cache_drifts(
    statistics: CacheStatistics, config: AuditConfig, progress: Progress
) -> Iterator[CacheDrift]:
    """The drift of each teacher to each cache of ``config.compare`` that has it too.

    A teacher is found by its id; that its weights differ is reported. Raises CacheError for a cache
    that has no teacher in common with the audited one.
    """
    for number, folder in enumerate(config.compare, 1):
        other = read_statistics(TargetCache.open(folder), progress, compared=number)
        shared = [name for name in statistics.drifts if _comparable(statistics, other, name)]
        if not shared:
            raise CacheError(
                f"{folder} cannot be compared with {config.cache}",
                expected="a teacher with logits, of the same id and number of classes, in both",
                found=", ".join(other.scans) or "no teacher with logits",
                remedy="leave it out, or extract both with the same teacher",
            )
        for name in shared:
            yield _drift(statistics, other, name, folder)


def _comparable(first: CacheStatistics, other: CacheStatistics, name: str) -> bool:
    if name not in other.drifts or not first.drifts[name].frames or not other.drifts[name].frames:
        return False
    classes = {s.cache.teachers[name].identity.classes for s in (first, other)}
    return len(classes) == 1


def _drift(first: CacheStatistics, other: CacheStatistics, name: str, folder: str) -> CacheDrift:
    here, there = first.drifts[name], other.drifts[name]
    fingerprints = {s.cache.teachers[name].fingerprint for s in (first, other)}
    return CacheDrift(
        cache=folder,
        content_digest=other.cache.manifest.content_digest,
        teacher=name,
        same_teacher=len(fingerprints) == 1,
        frames=there.frames,
        videos=int((other.scans[name].video_frames > 0).sum()),
        edges_nats=tuple(here.bins.coarse_edges_nats().tolist()),
        first_frames=tuple(here.entropy_RK[0].astype(int).tolist()),
        other_frames=tuple(there.entropy_RK[0].astype(int).tolist()),
        entropy_distance=entropy_distance(here, there),
        class_distance=class_distance(here, there),
    )
