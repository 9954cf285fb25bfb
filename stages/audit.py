"""Audit: statistics of the teachers' confidence in a cache, as data, figures and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.audit.clips import clip_weights
from distinit.pipeline.audit.conditions import (
    Condition,
    failed_conditions,
    parse_condition,
    refuse_undefined,
)
from distinit.pipeline.audit.feature_warnings import feature_warnings
from distinit.pipeline.audit.features import audit_features
from distinit.pipeline.audit.labels import label_audit, read_labels
from distinit.pipeline.audit.quantiles import read_quantiles
from distinit.pipeline.audit.statistics import CacheStatistics, read_statistics
from distinit.pipeline.audit.summary import summarise
from distinit.pipeline.audit.tables import TeacherNumbers, write_tables
from distinit.pipeline.audit.video_states import video_states
from distinit.pipeline.audit.warnings import (
    cache_warnings,
    pair_warnings,
    pixel_warnings,
    teacher_warnings,
)
from distinit.pipeline.cache.output_stats import output_report
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.records import write_record
from distinit.pipeline.reports.comparison_plots import (
    figure_drift,
    figure_joint,
    figure_reliability,
)
from distinit.pipeline.reports.report import render_report
from distinit.pipeline.storage import atomic_write_bytes, remove_dead_partials
from distinit.pipeline.transport.secrets import refuse_secrets
from distinit.schemas.audit import AuditConfig, AuditResult, FailureRow, TeacherAudit
from distinit.schemas.audit_comparisons import CacheDrift, TeacherPairAudit
from distinit.schemas.audit_labels import LabelAudit
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.output_reports import OutputReport
from distinit.schemas.teacher import TeacherRecord
from distinit.stages.audit_details import pair_pictures, teacher_details
from distinit.stages.audit_drift import cache_drifts
from distinit.stages.audit_earlier import remove_earlier_report
from distinit.stages.audit_figures import (
    sheet_note,
    write_feature_figures,
    write_figures,
    write_teacher_figures,
)
from distinit.stages.audit_vocabulary import cache_to_audit

__all__ = ["audit"]


def audit(config: AuditConfig, *, progress: Progress | None = None) -> AuditResult:
    """Write ``report.html``, ``audit.json``, tables and figures to the folder ``config.out``.

    The report.html, figures and audit.json of an earlier audit are removed before the first file is
    written, and the new page and numbers are written last: where they are, the files that they name
    are of the same audit.

    Memory grows with the number of videos, not with the number of frames. Builds the index of the
    cache if this machine does not have it yet.

    Raises:
        CacheError: A cache is missing, incomplete or damaged, or cannot be compared.
        DatasetError: The labels cannot be read, or label none of the videos.
        FrameStoreError: The frame store is missing or damaged, or contains optical flow.
        VocabularyError: The vocabulary is unusable, or does not fit the teacher.
        ConfigError: The URL of a cache has credentials, ``config.out`` lies inside a cache or a
            frame store, or a condition of ``config.fail_if`` cannot be used or checked.
        StorageError: The report or the index of the cache cannot be written.
        LockedError: Another audit with a vocabulary writes to ``config.out``.
    """
    conditions = [parse_condition(text) for text in config.fail_if]
    for address in (config.cache, *config.compare):
        refuse_secrets(address, kept_in="the report")
    out, progress = Path(config.out), progress or NullProgress()
    refuse_inside_data(out)
    with cache_to_audit(config, progress) as cache:
        return _audit(cache, config, conditions, progress)


def _audit(
    cache: TargetCache, config: AuditConfig, conditions: Sequence[Condition], progress: Progress
) -> AuditResult:
    targets = {record.identity.target for record in cache.teachers.values()}
    refuse_undefined(conditions, targets, has_labels=config.labels is not None)
    store = None if config.frames is None else _rgb_store(config.frames)
    out = Path(config.out)
    remove_dead_partials(out)
    found = _find(cache, store, config, progress)
    remove_earlier_report(out)
    result = _result(found, config, out)
    failed = failed_conditions(conditions, result)
    result = result.model_copy(update={"failed_conditions": failed})
    atomic_write_bytes(out / "report.html", _page(found, result, config).encode())
    write_record(result, out / "audit.json")
    return result


@dataclass(frozen=True, slots=True)
class _Findings:
    """Everything that was found in a cache."""

    statistics: CacheStatistics
    store: FrameStore | None
    teachers: Sequence[TeacherAudit]
    pairs: Mapping[tuple[str, str], TeacherPairAudit]
    drifts: tuple[CacheDrift, ...]


def _find(
    cache: TargetCache, store: FrameStore | None, config: AuditConfig, progress: Progress
) -> _Findings:
    paths = cache.videos.column("path").to_pylist()
    statistics = read_statistics(
        cache,
        progress,
        labels=None if config.labels is None else read_labels(config.labels, paths),
        compared=0 if config.compare else None,
    )
    names = sorted(statistics.cache.teachers)
    teachers = [
        _audit_features(cache, name, progress)
        if cache.teachers[name].identity.target == "features"
        else _audit_teacher(statistics, name, store, config)
        for name in names
    ]
    pairs = {names: pair.summary() for names, pair in statistics.pairs.items() if pair.frames}
    drifts = tuple(cache_drifts(statistics, config, progress))
    return _Findings(statistics, store, teachers, pairs, drifts)


def _audit_teacher(
    statistics: CacheStatistics, teacher_id: str, store: FrameStore | None, config: AuditConfig
) -> TeacherAudit:
    cache = statistics.cache
    record = cache.teachers[teacher_id]
    scan = statistics.scans.get(teacher_id)
    if scan is None or scan.frames == 0:
        return TeacherAudit(record=record, confidence=None)
    confidence = summarise(
        scan,
        read_quantiles(cache, teacher_id),
        clip_weights(cache, teacher_id, config, scan.bins),
        statistics.videos,
        record.identity.label_names,
        config,
    )
    return TeacherAudit(
        record=record,
        confidence=confidence,
        answers=_output_report(cache, record),
        labels=_label_audit(statistics, teacher_id),
        sheet_note=None if store is None else sheet_note(config.frames or "", store, confidence),
    )


def _audit_features(cache: TargetCache, teacher_id: str, progress: Progress) -> TeacherAudit:
    found = audit_features(cache, teacher_id, progress)
    return TeacherAudit(record=cache.teachers[teacher_id], confidence=None, features=found)


def _label_audit(statistics: CacheStatistics, teacher_id: str) -> LabelAudit | None:
    if teacher_id not in statistics.labels:
        return None
    return label_audit(statistics.labels[teacher_id], statistics.cache.targets(teacher_id))


def _output_report(cache: TargetCache, record: TeacherRecord) -> OutputReport | None:
    units = sorted(cache.layout.committed_units(record.id))
    sums = (read_commit(cache.layout, record, unit).answers for unit in units)
    return output_report(sums, record.identity)


def _rgb_store(folder: str) -> FrameStore:
    store = FrameStore.open(folder)
    if store.manifest.flow is not None:
        raise FrameStoreError(
            f"{folder} contains optical flow, which a contact sheet cannot show",
            expected="a frame store with RGB frames",
            remedy="pass the frame store that the flow was computed from",
        )
    return store


def _page(found: _Findings, result: AuditResult, config: AuditConfig) -> str:
    details = {
        teacher.record.id: teacher_details(
            found.statistics, teacher.record.id, teacher.confidence, found.store, config
        )
        for teacher in found.teachers
        if teacher.confidence is not None
    }
    pictures = [pair_pictures(found.statistics, names, found.store) for names in found.pairs]
    return render_report(result, details, pictures, config)


def _write_figures(found: _Findings, out: Path) -> tuple[str, ...]:
    names = []
    for teacher in found.teachers:
        if teacher.confidence is not None:
            names += write_teacher_figures(out, teacher.record.id, teacher.confidence, found.store)
        if teacher.features is not None:
            names += write_feature_figures(out, teacher.record.id, teacher.features)
        if teacher.labels is not None:
            reliability = figure_reliability(teacher.labels)
            names += write_figures(out, {f"{teacher.record.id}-reliability": reliability})
    for (first, second), pair in found.pairs.items():
        names += write_figures(out, {f"{first}-{second}-joint": figure_joint(pair)})
    names += write_figures(
        out,
        {
            f"drift-{number}-{d.teacher}": figure_drift(d)
            for number, d in enumerate(found.drifts, 1)
        },
    )
    return tuple(names)


def _write_tables(found: _Findings, out: Path) -> tuple[str, ...]:
    numbers = [
        TeacherNumbers(
            teacher.record.id,
            found.statistics.scans[teacher.record.id],
            teacher.confidence.curve,
            teacher.record.identity.label_names,
        )
        for teacher in found.teachers
        if teacher.confidence is not None
    ]
    return write_tables(out, numbers, found.statistics.videos)


def _result(found: _Findings, config: AuditConfig, out: Path) -> AuditResult:
    """Everything but the conditions. Writes the figures and the tables."""
    statistics, pairs = found.statistics, tuple(found.pairs.values())
    videos, manifest = statistics.cache.videos, statistics.cache.manifest
    states = video_states(videos)
    of_pixels = () if found.store is None else pixel_warnings(statistics, found.store)
    of_teachers = [w for t in found.teachers for w in teacher_warnings(statistics, t)]
    of_features = feature_warnings(found.teachers)
    in_corpus_V = videos.column("in_corpus").to_numpy()
    return AuditResult(
        cache=config.cache,
        content_digest=manifest.content_digest,
        videos=states.videos,
        failed_videos=states.failed.num_rows,
        damaged_videos=states.damaged.num_rows,
        gone_videos=videos.num_rows - states.videos,
        frames=int(statistics.pictures.frames_V[in_corpus_V].sum()),
        failures=tuple(
            FailureRow(video_id=row["video_id"], path=row["path"], error=row["error"] or "")
            for row in states.failed[: config.table_rows].to_pylist()
        ),
        teachers=tuple(found.teachers),
        pairs=pairs,
        drifts=found.drifts,
        warnings=(
            *cache_warnings(statistics),
            *of_pixels,
            *of_teachers,
            *of_features,
            *pair_warnings(pairs),
        ),
        pictures=_write_figures(found, out),
        tables=_write_tables(found, out),
        report=str(Path(config.out) / "report.html"),
    )
