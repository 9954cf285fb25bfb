"""Audit: statistics of the teachers' confidence in a cache, as JSON, plots and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from distinit.pipeline.cache.output_stats import output_report
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.frames.jpeg import decode_jpeg
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.records import write_record
from distinit.pipeline.reports.contact_sheet import SheetPicture, contact_sheet
from distinit.pipeline.reports.plots import DARK, LIGHT, plot_classes, plot_entropy, plot_kept
from distinit.pipeline.reports.quantiles import read_quantiles
from distinit.pipeline.reports.report import TeacherPictures, ThemedPlot, render_report
from distinit.pipeline.reports.scan import ConfidenceScan, read_units
from distinit.pipeline.reports.summary import VideoNames, summarise
from distinit.pipeline.storage import atomic_write_bytes, remove_dead_partials
from distinit.schemas.audit import (
    AuditConfig,
    AuditResult,
    ConfidenceAudit,
    FailureRow,
    FrameSample,
    TeacherAudit,
)
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.output_reports import OutputReport
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.wording import counted

__all__ = ["audit"]

Jpegs = Mapping[tuple[str, int], bytes]
"""(video_id, frame_index) -> JPEG bytes."""


def audit(config: AuditConfig, *, progress: Progress | None = None) -> AuditResult:
    """Write ``report.html``, ``audit.json`` and PNG files to the folder ``config.out``.

    Memory grows with the number of videos, not with the number of frames. Builds the index of the
    cache if this machine does not have it yet.

    Raises:
        CacheError: The cache is missing, incomplete or damaged.
        FrameStoreError: The frame store is missing or damaged, or contains optical flow.
        ConfigError: ``config.out`` lies inside a cache or a frame store.
        StorageError: The report or the index of the cache cannot be written.
    """
    progress = progress or NullProgress()
    cache = TargetCache.open(config.cache)
    store = None if config.frames is None else _rgb_store(config.frames)
    out = Path(config.out)
    refuse_inside_data(out)
    remove_dead_partials(out)
    audits, pictures, files = [], {}, []
    for teacher_id in sorted(cache.teachers):
        teacher = _audit_teacher(cache, teacher_id, config, progress)
        audits.append(teacher)
        if teacher.confidence is not None:
            jpegs = _frame_jpegs(store, teacher.confidence)
            if store is not None:
                note = _sheet_note(config, teacher.confidence, jpegs)
                audits[-1] = teacher.model_copy(update={"sheet_note": note})
            pictures[teacher_id] = _draw(teacher.confidence, jpegs)
            files += _write_pictures(out, teacher_id, teacher.confidence, pictures[teacher_id])
    result = _result(cache, config, audits, files)
    atomic_write_bytes(out / "report.html", render_report(result, pictures).encode())
    write_record(result, out / "audit.json")
    return result


def _audit_teacher(
    cache: TargetCache, teacher_id: str, config: AuditConfig, progress: Progress
) -> TeacherAudit:
    record = cache.teachers[teacher_id]
    if record.identity.target == "features":
        return TeacherAudit(record=record, confidence=None)
    names = VideoNames(
        cache.videos.column("video_id").to_pylist(), cache.videos.column("path").to_pylist()
    )
    numbers = {video_id: number for number, video_id in enumerate(names.ids)}
    scan = ConfidenceScan(len(names.ids), record.identity.classes)
    progress.start("audit", total=cache.manifest.row_space.rows, unit="frames")
    in_corpus = cache.videos.column("in_corpus").to_pylist()
    gone = [number for number, present in enumerate(in_corpus) if not present]
    for rows in read_units(cache, teacher_id, numbers, gone):
        scan.add(rows)
        progress.advance(len(rows.entropy_nats_N))
    progress.finish()
    if scan.frames == 0:
        return TeacherAudit(record=record, confidence=None)
    return TeacherAudit(
        record=record,
        confidence=summarise(
            scan,
            read_quantiles(cache, teacher_id),
            names,
            record.identity.label_names,
            config,
        ),
        answers=_output_report(cache, record),
    )


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


def _frame_jpegs(store: FrameStore | None, confidence: ConfidenceAudit) -> Jpegs:
    """JPEG bytes of the frames of the contact sheets, for videos that the store contains."""
    if store is None:
        return {}
    samples = (*confidence.most_confident_frames, *confidence.least_confident_frames)
    return {
        (sample.video_id, sample.frame_index): store.jpegs(sample.video_id, [sample.frame_index])[0]
        for sample in samples
        if sample.video_id in store.videos
    }


def _sheet_note(config: AuditConfig, confidence: ConfidenceAudit, jpegs: Jpegs) -> str | None:
    """What the contact sheets lack because the frame store does not contain it."""
    samples = (*confidence.most_confident_frames, *confidence.least_confident_frames)
    frames = {(sample.video_id, sample.frame_index) for sample in samples}
    missing = len(frames) - len(jpegs)
    if not missing:
        return None
    if not jpegs:
        return (
            f"no contact sheets: {config.frames} contains none of the videos they would show; "
            "pass the frame store of the videos of this cache"
        )
    return (
        f"{missing} of {counted(len(frames), 'frame')} missing from the contact sheets: "
        f"{config.frames} does not contain their videos"
    )


def _draw(confidence: ConfidenceAudit, jpegs: Jpegs) -> TeacherPictures:
    classes = confidence.top_classes
    return TeacherPictures(
        entropy=ThemedPlot(plot_entropy(confidence, LIGHT), plot_entropy(confidence, DARK)),
        kept=ThemedPlot(plot_kept(confidence, LIGHT), plot_kept(confidence, DARK)),
        classes=ThemedPlot(plot_classes(classes, LIGHT), plot_classes(classes, DARK)),
        frame_jpegs=jpegs,
    )


def _write_pictures(
    out: Path, teacher_id: str, confidence: ConfidenceAudit, pictures: TeacherPictures
) -> list[str]:
    """Write the PNG files of one teacher; return their names."""
    pngs = {
        "entropy": pictures.entropy.light,
        "kept": pictures.kept.light,
        "classes": pictures.classes.light,
    }
    if pictures.frame_jpegs:
        jpegs = pictures.frame_jpegs
        pngs["most-confident"] = _sheet(confidence.most_confident_frames, jpegs)
        pngs["least-confident"] = _sheet(confidence.least_confident_frames, jpegs)
    for name, png in pngs.items():
        atomic_write_bytes(out / f"{teacher_id}-{name}.png", png)
    return [f"{teacher_id}-{name}.png" for name in pngs]


def _sheet(samples: Sequence[FrameSample], jpegs: Jpegs) -> bytes:
    found = [
        (sample, jpegs[sample.video_id, sample.frame_index])
        for sample in samples
        if (sample.video_id, sample.frame_index) in jpegs
    ]
    return contact_sheet([SheetPicture(_pixels(jpeg), _caption(sample)) for sample, jpeg in found])


def _pixels(jpeg: bytes) -> np.ndarray:
    """uint8 RGB [H, W, 3]."""
    pixels: np.ndarray = decode_jpeg(jpeg).permute(1, 2, 0).numpy()
    return pixels


def _caption(sample: FrameSample) -> tuple[str, str]:
    confidence = f"{100 * sample.top1_probability:.1f} %, {sample.entropy_nats:.2f} nats"
    return sample.top1_name, confidence


def _result(
    cache: TargetCache, config: AuditConfig, audits: Sequence[TeacherAudit], files: Sequence[str]
) -> AuditResult:
    columns = ["video_id", "path", "status", "error", "in_corpus"]
    rows = cache.videos.select(columns).to_pylist()
    in_corpus = [row for row in rows if row["in_corpus"]]
    failed = [row for row in in_corpus if row["status"] == "failed"]
    return AuditResult(
        cache=config.cache,
        content_digest=cache.manifest.content_digest,
        videos=len(in_corpus),
        failed_videos=len(failed),
        gone_videos=len(rows) - len(in_corpus),
        frames=_rows_of_corpus(cache),
        failures=tuple(
            FailureRow(video_id=row["video_id"], path=row["path"], error=row["error"] or "")
            for row in failed[: config.table_rows]
        ),
        teachers=tuple(audits),
        pictures=tuple(files),
        report=str(Path(config.out) / "report.html"),
    )


def _rows_of_corpus(cache: TargetCache) -> int:
    """Number of rows of the videos that the corpus contains."""
    space, corpus = cache.manifest.row_space, cache.manifest.corpus
    if not corpus.gone:
        return space.rows
    index = cache.index
    ids = cache.videos.filter(cache.videos.column("in_corpus")).column("video_id").to_pylist()
    numbers_V = index.numbers_of(np.array([video_id.encode() for video_id in ids], np.bytes_))
    return int(index.row_count[numbers_V].sum())
