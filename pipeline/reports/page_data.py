"""The numbers of the audit's page, as JSON with typed arrays in base64."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distinit.pipeline.reports.details import (
    FramePicture,
    PairPictures,
    TeacherDetails,
    VideoRibbon,
)
from distinit.schemas.audit import AuditResult, ConfidenceAudit, FrameSample, TeacherAudit
from distinit.schemas.wording import one_line

__all__ = ["packed", "page_data"]

_LEVELS = 254
_NO_VALUE = 255


def packed(values: Any, kind: str) -> dict[str, str]:
    """A typed array for the page. ``kind``: u8, u16, u32 or f32; little-endian."""
    dtype = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "f32": "<f4"}[kind]
    array = np.asarray(values)
    if kind != "f32":
        array = np.clip(array, 0, np.iinfo(dtype).max)
    data = np.ascontiguousarray(array.astype(dtype)).tobytes()
    return {"kind": kind, "data": base64.b64encode(data).decode()}


def page_data(
    result: AuditResult,
    details: Mapping[str, TeacherDetails],
    pairs: Sequence[PairPictures],
    clip: Mapping[str, object],
) -> str:
    """JSON that can stand inside of a ``script`` element: it contains no ``<``, ``>`` and ``&``."""
    images: dict[str, int] = {}
    value = {
        "clip": clip,
        "teachers": [
            _teacher(teacher, teacher.confidence, details[teacher.record.id], images)
            for teacher in result.teachers
            if teacher.confidence is not None
        ],
        "pairs": [
            [
                [_picture(picture, images) for picture in sheet]
                for sheet in (pair.only_first, pair.only_second)
            ]
            for pair in pairs
        ],
        "images": list(images),
    }
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _teacher(
    teacher: TeacherAudit,
    confidence: ConfidenceAudit,
    details: TeacherDetails,
    images: dict[str, int],
) -> dict[str, Any]:
    curve, bins = confidence.curve, details.classes
    return {
        "id": one_line(teacher.record.id),
        "step": curve.step_nats,
        "highest": confidence.highest_possible_nats,
        "frames": packed(curve.frames, "u32"),
        "clips": packed(curve.clips, "f32") if curve.clips else None,
        "videos": packed(curve.videos, "u32"),
        "classesLeft": packed(curve.classes, "u32"),
        "classes": {
            "names": [one_line(name) for name in details.class_names],
            "frames": packed(details.class_frames_C, "u32"),
            "mean": packed(np.nan_to_num(details.class_mean_nats_C, nan=-1), "f32"),
            "merged": bins.merged,
            "first": packed(bins.first_C, "u32"),
            "bin": packed(bins.bin_K, "u16"),
            "count": packed(bins.frames_K, "u32"),
        },
        "ribbons": [_ribbon(ribbon, confidence, images) for ribbon in details.ribbons],
        "near": [_picture(picture, images) for picture in details.near],
        "sheets": [
            [_picture(picture, images) for picture in sheet]
            for sheet in (details.most_confident, details.least_confident, details.outliers)
        ],
    }


def _ribbon(
    ribbon: VideoRibbon, confidence: ConfidenceAudit, images: dict[str, int]
) -> dict[str, Any]:
    scale = _LEVELS / confidence.highest_possible_nats
    level_P = np.rint(ribbon.ribbon.entropy_nats_P * scale)
    points_P = np.where(np.isnan(level_P), _NO_VALUE, np.clip(level_P, 0, _LEVELS))
    return {
        "path": one_line(ribbon.path),
        "frames": ribbon.frames,
        "mean": round(ribbon.mean_nats, 4),
        "spread": round(ribbon.spread_nats, 4),
        "points": packed(points_P, "u8"),
        "at": packed(ribbon.ribbon.frame_P, "u32"),
        "last": ribbon.ribbon.last_frame,
        "cuts": list(ribbon.cuts),
        "pictures": [_picture(picture, images) for picture in ribbon.pictures],
    }


def _picture(picture: FramePicture, images: dict[str, int]) -> dict[str, Any]:
    """``image`` is the number of the picture in the list of images, which holds each one once."""
    sample = picture.sample
    data = base64.b64encode(picture.jpeg).decode()
    return {
        "image": images.setdefault(data, len(images)),
        "path": one_line(sample.path),
        "frame": sample.frame_index,
        "nats": round(sample.entropy_nats, 4),
        "top": [[one_line(name), round(share, 5)] for name, share in _top_of(picture, sample)],
        "note": one_line(picture.note),
        "other": [[one_line(name), round(share, 5)] for name, share in picture.other],
    }


def _top_of(picture: FramePicture, sample: FrameSample) -> Sequence[tuple[str, float]]:
    return picture.top or ((sample.top1_name, sample.top1_probability),)
