"""Writes the figures of an audit as PNG and PDF files, and its contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.plotting.rendering import figure_pdf, figure_png
from distinit.pipeline.reports.contact_sheet import SheetPicture, contact_sheet
from distinit.pipeline.reports.feature_plots import figure_norms, figure_spectrum
from distinit.pipeline.reports.frame_pictures import pixels_of
from distinit.pipeline.reports.plots import figure_classes, figure_entropy, figure_kept
from distinit.pipeline.storage import atomic_write_bytes
from distinit.schemas.audit import ConfidenceAudit, FrameSample
from distinit.schemas.audit_features import FeatureAudit
from distinit.schemas.wording import counted

__all__ = ["sheet_note", "write_feature_figures", "write_figures", "write_teacher_figures"]

Jpegs = Mapping[tuple[str, int], bytes]
"""(video_id, frame_index) -> JPEG bytes."""


def write_figures(out: Path, figures: Mapping[str, Figure]) -> list[str]:
    """Write each figure as PNG and PDF; returns the names of the files. Raises StorageError."""
    names = []
    for name, figure in figures.items():
        for kind, data in (("png", figure_png(figure)), ("pdf", figure_pdf(figure))):
            atomic_write_bytes(out / f"{name}.{kind}", data)
            names.append(f"{name}.{kind}")
    return names


def write_teacher_figures(
    out: Path, teacher_id: str, confidence: ConfidenceAudit, store: FrameStore | None
) -> list[str]:
    """Write the figures of one teacher, and its contact sheets if the store has their frames.

    Returns the names of the files. Raises StorageError, and FrameStoreError for a damaged store.
    """
    figures = {
        "entropy": figure_entropy(confidence),
        "kept": figure_kept(confidence),
        "classes": figure_classes(confidence.top_classes),
    }
    names = write_figures(out, {f"{teacher_id}-{name}": f for name, f in figures.items()})
    jpegs = _frame_jpegs(store, confidence)
    sheets = {
        "most-confident": confidence.most_confident_frames,
        "least-confident": confidence.least_confident_frames,
        "outliers": confidence.outlier_frames,
    }
    for name, samples in sheets.items() if jpegs else ():
        if not any((sample.video_id, sample.frame_index) in jpegs for sample in samples):
            continue
        atomic_write_bytes(out / f"{teacher_id}-{name}.png", _sheet(samples, jpegs))
        names.append(f"{teacher_id}-{name}.png")
    return names


def write_feature_figures(out: Path, teacher_id: str, found: FeatureAudit) -> list[str]:
    """Write the figures of a teacher that stores features; returns the names of the files."""
    figures = {"norms": figure_norms(found)}
    if found.effective_rank is not None:
        figures["spectrum"] = figure_spectrum(found)
    return write_figures(out, {f"{teacher_id}-{name}": f for name, f in figures.items()})


def sheet_note(folder: str, store: FrameStore, confidence: ConfidenceAudit) -> str | None:
    """What the contact sheets lack because the frame store in ``folder`` does not contain it."""
    frames = {(sample.video_id, sample.frame_index) for sample in _shown(confidence)}
    missing = sum(video_id not in store.videos for video_id, _ in frames)
    if not missing:
        return None
    if missing == len(frames):
        return (
            f"no contact sheets: {folder} contains none of the videos they would show; "
            "pass the frame store of the videos of this cache"
        )
    return (
        f"{missing} of {counted(len(frames), 'frame')} missing from the contact sheets: "
        f"{folder} does not contain their videos"
    )


def _shown(confidence: ConfidenceAudit) -> tuple[FrameSample, ...]:
    return (
        *confidence.most_confident_frames,
        *confidence.least_confident_frames,
        *confidence.outlier_frames,
    )


def _frame_jpegs(store: FrameStore | None, confidence: ConfidenceAudit) -> Jpegs:
    """JPEG bytes of the frames of the contact sheets, for videos that the store contains."""
    if store is None:
        return {}
    return {
        (sample.video_id, sample.frame_index): store.jpegs(sample.video_id, [sample.frame_index])[0]
        for sample in _shown(confidence)
        if sample.video_id in store.videos
    }


def _sheet(samples: Sequence[FrameSample], jpegs: Jpegs) -> bytes:
    found = [
        (sample, jpegs[sample.video_id, sample.frame_index])
        for sample in samples
        if (sample.video_id, sample.frame_index) in jpegs
    ]
    pictures = [SheetPicture(pixels_of(jpeg), _caption(sample)) for sample, jpeg in found]
    return contact_sheet(pictures)


def _caption(sample: FrameSample) -> tuple[str, str]:
    confidence = f"{100 * sample.top1_probability:.1f} %, {sample.entropy_nats:.2f} nats"
    return sample.top1_name, confidence
