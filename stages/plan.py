"""Before stage one: what an extraction of these videos would give, and what it would cost."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence

from pydantic import Field

from distinit.pipeline.corpus.listing import find_videos
from distinit.pipeline.corpus.source import VideoSource
from distinit.pipeline.corpus.spool import Spool
from distinit.pipeline.frames.fill import store_view
from distinit.pipeline.planning.estimate import (
    Speed,
    TargetWidth,
    Total,
    estimate_hours,
    estimate_total,
    logit_bytes,
)
from distinit.pipeline.planning.measure import (
    VideoSample,
    mean_jpeg_bytes,
    measure_videos,
    rows_per_second,
)
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.teachers.forward import CPU_BATCH
from distinit.pipeline.teachers.registry import load_teacher
from distinit.pipeline.video.views import View
from distinit.schemas.base import Record, sha256_of
from distinit.schemas.corpus import left_out_lines
from distinit.schemas.errors import CorpusError
from distinit.schemas.plan import PlanConfig
from distinit.schemas.wording import counted, one_line

__all__ = ["PlanResult", "TotalRecord", "plan"]

_STORE = "store"
_CLASSES = 1000  # where no teacher is named
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class TotalRecord(Record):
    """An estimate for the whole corpus; in 19 of 20 samples the truth lies in low .. high."""

    expected: int
    low: int
    high: int

    def __str__(self) -> str:
        spread = "" if self.low == self.high else f"  ({self.low:,} .. {self.high:,})"
        return f"{self.expected:,}{spread}"


class PlanResult(Record):
    """What an extraction would give and cost. Nothing was written."""

    videos: int
    sampled: int = Field(description="videos looked at")
    unreadable: int = Field(description="of those; they count as empty")
    frames: TotalRecord
    rows: TotalRecord = Field(description="frames that the teachers would see")
    logit_bytes: dict[str, int] = Field(description="encoding -> bytes, of all teachers together")
    frame_store_bytes: int
    decoded_frames_per_second: float = Field(description="of one worker on this machine")
    teacher_rows_per_second: dict[str, float] = Field(description="of one worker, by teacher")
    hours: dict[int, float] = Field(description="workers -> hours, each with a machine like this")
    machine: str
    left_out: dict[str, int] = Field(
        default_factory=dict, description="extension -> files that are not taken for videos"
    )
    hidden_left_out: dict[str, int] = Field(
        default_factory=dict,
        description="extension -> hidden files that look like videos; folder -> hidden folders",
    )
    refused: dict[str, str] = Field(
        default_factory=dict, description="names that cannot be stored, escaped -> why"
    )

    def summary(self) -> str:
        """A table for people."""
        lines = [
            f"videos       {self.videos:,}  ({self.sampled} looked at, "
            f"{self.unreadable} unreadable)",
            *left_out_lines(self.left_out, self.hidden_left_out),
            *(f"{one_line(path)}: {one_line(why)}" for path, why in self.refused.items()),
            f"frames       {self.frames}",
            f"rows         {self.rows}",
            f"frame store  {_size(self.frame_store_bytes)}",
            "",
            "logits as    " + "   ".join(f"{e} {_size(b)}" for e, b in self.logit_bytes.items()),
            "",
            f"one worker   decodes {self.decoded_frames_per_second:,.0f} frames/s",
        ]
        lines += [
            f"             {one_line(name)}: {rate:,.0f} rows/s"
            for name, rate in self.teacher_rows_per_second.items()
        ]
        lines += ["", f"workers, each with what was measured here ({one_line(self.machine)}):"]
        lines += [f"{count:>7}      {_duration(hours)}" for count, hours in self.hours.items()]
        return "\n".join(lines)


def plan(config: PlanConfig, *, progress: Progress | None = None) -> PlanResult:
    """Look at a few videos, decode and run the teachers for some seconds, and extrapolate.

    Raises CorpusError when there are no videos or none of the sample can be decoded,
    TeacherError and WeightsError.
    """
    progress = progress or NullProgress()
    found = find_videos(config.videos)
    teachers = [
        load_teacher(
            request,
            device=config.device,
            precision=config.precision,
            batch_size=config.batch_size,
            compiled=config.compile,
        )
        for request in config.teachers
    ]
    views = _views(config, teachers)
    sample = _sample(found.paths, config.sample)
    progress.message(f"looking at {len(sample)} of {counted(len(found.paths), 'video')}")
    looks = measure_videos(
        VideoSource(found.root, found.urls, Spool.of(config.spool)),
        sample,
        views,
        config.decode,
        config.sampling,
        block_frames=max((teacher.batch_size for teacher in teachers), default=CPU_BATCH),
        seconds=config.seconds,
    )
    decoded = [look for look in looks if look.decoded_frames]
    if not decoded:
        raise CorpusError(
            "none of the videos that were looked at can be decoded",
            expected="videos",
            found=", ".join(sample[:5]),
            remedy="play one of them, or look at more with --set sample=N",
        )
    progress.message(f"timing {counted(len(teachers), 'teacher')}")
    speeds = {teacher.id: _teacher_speed(config, teacher, views, decoded) for teacher in teachers}
    result = _result(config, len(found.paths), looks, teachers, speeds)
    return result.model_copy(
        update={
            "left_out": dict(found.left_out.others),
            "hidden_left_out": dict(found.left_out.hidden),
            "refused": dict(found.refused),
        }
    )


def _views(config: PlanConfig, teachers: Sequence[Teacher]) -> dict[str, View]:
    """The frame store's picture and the teachers', each once."""
    distinct = dict.fromkeys(teacher.view for teacher in teachers)
    return {_STORE: store_view(config.geometry)} | {
        f"view{number}": view for number, view in enumerate(distinct)
    }


def _sample(paths: Sequence[str], size: int) -> list[str]:
    """``size`` of the paths, spread without regard to folders, the same ones every time."""
    return sorted(paths, key=lambda path: (sha256_of(path), path))[:size]


def _teacher_speed(
    config: PlanConfig, teacher: Teacher, views: Mapping[str, View], decoded: Sequence[VideoSample]
) -> float:
    name = next(n for n, view in views.items() if view == teacher.view and n != _STORE)
    largest = max((look.pictures[name] for look in decoded), key=len)
    return rows_per_second(teacher, largest, config.seconds)


def _result(
    config: PlanConfig,
    videos: int,
    looks: Sequence[VideoSample],
    teachers: Sequence[Teacher],
    speeds: Mapping[str, float],
) -> PlanResult:
    decoded = [look for look in looks if look.decoded_frames]
    quality = config.geometry.jpeg_quality
    jpeg_bytes = statistics.fmean(
        (mean_jpeg_bytes(look.pictures[_STORE], quality) for look in decoded),
        weights=[look.frames for look in decoded],
    )
    # Videos were decoded side by side, as a worker does: its rate is that of all together.
    side_by_side = min(config.decode.parallel_videos, len(decoded))
    busy_seconds = sum(look.decoding_seconds for look in decoded)
    frames_per_second = sum(v.decoded_frames for v in decoded) / busy_seconds * side_by_side
    frames = estimate_total([look.frames for look in looks], videos)
    rows = estimate_total([look.rows for look in looks], videos)
    on_gpu = any(not teacher.device.startswith("cpu") for teacher in teachers)
    speed = Speed(frames_per_second, tuple(speeds.values()), overlap=on_gpu)
    widths = [TargetWidth(t.identity.classes, t.identity.target == "logits") for t in teachers]
    return PlanResult(
        videos=videos,
        sampled=len(looks),
        unreadable=sum(look.frames == 0 for look in looks),
        frames=_record(frames),
        rows=_record(rows),
        logit_bytes=dict(
            logit_bytes(rows.expected, widths or [TargetWidth(_CLASSES)], config.encodings)
        ),
        frame_store_bytes=round(frames.expected * jpeg_bytes),
        decoded_frames_per_second=round(frames_per_second, 2),
        teacher_rows_per_second={name: round(rate, 2) for name, rate in speeds.items()},
        hours=dict(estimate_hours(frames.expected, rows.expected, speed, config.workers)),
        machine=f"{os.cpu_count()} CPU cores" + (", one GPU" if on_gpu else ""),
    )


def _record(total: Total) -> TotalRecord:
    return TotalRecord(expected=total.expected, low=total.low, high=total.high)


def _size(count: float) -> str:
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} {_UNITS[-1]}"


def _duration(hours: float) -> str:
    return f"{hours * 3600:.0f} s" if hours < 1 / 60 else f"{hours:,.2f} h"
