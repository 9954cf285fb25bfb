"""The numbers of an audit as Parquet tables: by threshold, by class and by video."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distinit.pipeline.audit.samples import VideoNames, class_name
from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.pipeline.storage import atomic_write_bytes
from distinit.schemas.audit import ThresholdCurve
from distinit.schemas.tables import (
    AUDIT_CLASSES_SCHEMA,
    AUDIT_THRESHOLDS_SCHEMA,
    AUDIT_VIDEOS_SCHEMA,
)

__all__ = ["TeacherNumbers", "write_tables"]


@dataclass(frozen=True, slots=True)
class TeacherNumbers:
    """What the tables contain of one teacher."""

    teacher_id: str
    scan: ConfidenceScan
    curve: ThresholdCurve
    label_names: Sequence[str]


def write_tables(
    out: Path, teachers: Sequence[TeacherNumbers], videos: VideoNames
) -> tuple[str, ...]:
    """Write the tables to the folder ``out``; returns their names. Raises StorageError."""
    tables = {
        "audit.parquet": (AUDIT_THRESHOLDS_SCHEMA, map(_thresholds, teachers)),
        "audit-classes.parquet": (AUDIT_CLASSES_SCHEMA, map(_classes, teachers)),
        "audit-videos.parquet": (
            AUDIT_VIDEOS_SCHEMA,
            (_videos(teacher, videos) for teacher in teachers),
        ),
    }
    for name, (schema, parts) in tables.items():
        buffer = io.BytesIO()
        pq.write_table(pa.concat_tables([schema.empty_table(), *parts]), buffer, compression="zstd")
        atomic_write_bytes(out / name, buffer.getvalue())
    return tuple(tables)


def _thresholds(teacher: TeacherNumbers) -> pa.Table:
    curve = teacher.curve
    count = len(curve.frames)
    return pa.table(
        {
            "teacher": pa.array([teacher.teacher_id] * count, pa.string()),
            "max_entropy_nats": np.arange(1, count + 1) * curve.step_nats,
            "kept_frames": pa.array(curve.frames, pa.int64()),
            "kept_clips_share": pa.array(curve.clips or [None] * count, pa.float64()),
            "kept_videos": pa.array(curve.videos, pa.int64()),
            "classes_left": pa.array(curve.classes, pa.int64()),
        },
        schema=AUDIT_THRESHOLDS_SCHEMA,
    )


def _classes(teacher: TeacherNumbers) -> pa.Table:
    scan = teacher.scan
    frames_C = scan.class_frames
    count = len(frames_C)
    mean_C = np.divide(
        scan.class_entropy_sum_nats, frames_C, np.full(count, np.nan), where=frames_C > 0
    )
    return pa.table(
        {
            "teacher": pa.array([teacher.teacher_id] * count, pa.string()),
            "class_index": np.arange(count, dtype=np.int32),
            "name": [class_name(teacher.label_names, index) for index in range(count)],
            "frames": frames_C,
            "mean_entropy_nats": pa.array(mean_C, from_pandas=True),
        },
        schema=AUDIT_CLASSES_SCHEMA,
    )


def _videos(teacher: TeacherNumbers, videos: VideoNames) -> pa.Table:
    scan = teacher.scan
    (number_K,) = np.nonzero(scan.video_frames)
    take = number_K.tolist()
    return pa.table(
        {
            "teacher": pa.array([teacher.teacher_id] * len(take), pa.string()),
            "video_id": [videos.ids[number] for number in take],
            "path": [videos.paths[number] for number in take],
            "frames": scan.video_frames[number_K],
            "mean_entropy_nats": scan.video_entropy_sum_nats[number_K]
            / scan.video_frames[number_K],
            "entropy_spread_nats": scan.video_spread_nats()[number_K],
            "lowest_entropy_nats": scan.most_confident.entropies_nats()[number_K],
            "highest_entropy_nats": scan.least_confident.entropies_nats()[number_K],
        },
        schema=AUDIT_VIDEOS_SCHEMA,
    )
