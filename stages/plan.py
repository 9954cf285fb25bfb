"""Estimates rows, bytes and hours of an extraction from a sample of the videos."""

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
from distinit.pipeline.teachers.registry import load_teachers
from distinit.pipeline.teachers.views import teacher_views
from distinit.schemas.base import Record, sha256_of
from distinit.schemas.corpus import left_out_lines
from distinit.schemas.errors import CorpusError
from distinit.schemas.plan import PlanConfig
from distinit.schemas.wording import counted, duration, one_line

__all__ = ["PlanResult", "TotalRecord", "plan"]

_STORE = "store"
_CLASSES = 1000  # assumed if no teacher is named
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class TotalRecord(Record):
    """An estimate for the whole corpus, with a 95 % confidence interval low .. high."""

    expected: int = Field(description="estimated total")
    low: int = Field(description="lower end of the interval")
    high: int = Field(description="upper end of the interval")

    def __str__(self) -> str:
        spread = (
            "" if self.low == self.high else f"  (95 % interval: {self.low:,} to {self.high:,})"
        )
        return f"{self.expected:,}{spread}"


class PlanResult(Record):
    """Estimated output and cost of an extraction. Nothing is written."""

    videos: int = Field(description="videos in the corpus")
    sampled: int = Field(description="videos in the sample")
    unreadable: int = Field(
        description="videos of the sample that cannot be read; they count as empty"
    )
    frames: TotalRecord = Field(description="decoded frames")
    rows: TotalRecord = Field(description="frames that the teachers would see")
    logit_bytes: dict[str, int] = Field(
        description="encoding -> bytes of the targets of all teachers"
    )
    frame_store_bytes: int = Field(description="size of a frame store of all videos, bytes")
    decoded_frames_per_second: float = Field(description="decoding speed of one worker")
    teacher_rows_per_second: dict[str, float] = Field(
        description="teacher -> rows per second of one worker"
    )
    outputs: dict[str, int] = Field(
        default_factory=dict,
        description="teacher -> values of a row, and outputs of a student's head for the teacher",
    )
    hours: dict[int, float] = Field(
        description="workers -> hours, if each worker has a machine like this"
    )
    machine: str = Field(description="cores and GPU of the machine that was measured")
    left_out: dict[str, int] = Field(
        default_factory=dict,
        description="extension -> number of files that are not videos by their extension",
    )
    hidden_left_out: dict[str, int] = Field(
        default_factory=dict,
        description="extension -> number of hidden video files; folder -> number of hidden folders",
    )
    refused: dict[str, str] = Field(
        default_factory=dict, description="escaped file name that cannot be stored -> reason"
    )

    def summary(self) -> str:
        """A table for the terminal."""
        lines = [
            f"videos       {self.videos:,}  ({self.sampled} sampled, {self.unreadable} unreadable)",
            *left_out_lines(self.left_out, self.hidden_left_out),
            *(f"{one_line(path)}: {one_line(why)}" for path, why in self.refused.items()),
            f"frames       {self.frames}",
            f"rows         {self.rows}",
            f"frame store  {_size(self.frame_store_bytes)}",
            "",
            "targets as   " + "   ".join(f"{e} {_size(b)}" for e, b in self.logit_bytes.items()),
            *self._heads(),
            "",
            f"one worker   decodes {self.decoded_frames_per_second:,.0f} frames/s",
        ]
        lines += [
            f"             {one_line(name)}: {rate:,.0f} rows/s"
            for name, rate in self.teacher_rows_per_second.items()
        ]
        lines += ["", f"workers, each with a machine like this ({one_line(self.machine)}):"]
        lines += [f"{count:>7}      {_duration(hours)}" for count, hours in self.hours.items()]
        return "\n".join(lines)

    def _heads(self) -> list[str]:
        outputs = [f"{one_line(name)} {count:,}" for name, count in self.outputs.items()]
        return ["heads        outputs of a student: " + ", ".join(outputs)] if outputs else []


def plan(config: PlanConfig, *, progress: Progress | None = None) -> PlanResult:
    """Probe a sample of videos, decode and run the teachers for some seconds, and extrapolate.

    Raises CorpusError if there are no videos or none of the sample can be decoded, and what
    ``load_teachers`` raises.
    """
    progress = progress or NullProgress()
    found = find_videos(config.videos)
    by_id = load_teachers(
        config.teachers,
        device=config.device,
        precision=config.precision,
        batch_size=config.batch_size,
        compiled=config.compile,
    )
    teachers = tuple(by_id.values())
    views, view_of = teacher_views(teachers)
    views[_STORE] = store_view(config.geometry)
    paths = _sample(found.paths, config.sample)
    progress.message(f"sampling {len(paths)} of {counted(len(found.paths), 'video')}")
    samples = measure_videos(
        VideoSource(found.root, found.urls, Spool.of(config.spool)),
        paths,
        views,
        config.decode,
        config.sampling,
        block_frames=max((teacher.batch_size for teacher in teachers), default=CPU_BATCH),
        seconds=config.seconds,
    )
    decoded = [sample for sample in samples if sample.decoded_frame_count]
    if not decoded:
        raise CorpusError(
            "none of the sampled videos can be decoded",
            expected="videos",
            found=", ".join(paths[:5]),
            remedy="try to play one of them, or use a larger sample with --set sample=N",
        )
    progress.message(f"timing {counted(len(teachers), 'teacher')}")
    speeds = {
        name: _teacher_speed(config, teacher, view_of[name], decoded)
        for name, teacher in by_id.items()
    }
    result = _result(config, len(found.paths), samples, by_id, speeds)
    return result.model_copy(
        update={
            "left_out": dict(found.left_out.others),
            "hidden_left_out": dict(found.left_out.hidden),
            "refused": dict(found.refused),
        }
    )


def _sample(paths: Sequence[str], size: int) -> list[str]:
    """Pick ``size`` of the paths at random, independent of folders and the same in each run."""
    return sorted(paths, key=lambda path: (sha256_of(path), path))[:size]


def _teacher_speed(
    config: PlanConfig, teacher: Teacher, view: str, decoded: Sequence[VideoSample]
) -> float:
    frames_NHWC = max((sample.frames_NHWC[view] for sample in decoded), key=len)
    return rows_per_second(teacher, frames_NHWC, config.seconds)


def _result(
    config: PlanConfig,
    videos: int,
    samples: Sequence[VideoSample],
    teachers: Mapping[str, Teacher],
    speeds: Mapping[str, float],
) -> PlanResult:
    decoded = [sample for sample in samples if sample.decoded_frame_count]
    quality = config.geometry.jpeg_quality
    jpeg_bytes = statistics.fmean(
        (mean_jpeg_bytes(sample.frames_NHWC[_STORE], quality) for sample in decoded),
        weights=[sample.frame_count for sample in decoded],
    )
    # Videos were decoded in parallel, as in a worker: its speed is the sum over all of them.
    parallel = min(config.decode.videos_at_once(os.cpu_count()), len(decoded))
    busy_seconds = sum(sample.decoding_seconds for sample in decoded)
    frames_per_second = (
        sum(sample.decoded_frame_count for sample in decoded) / busy_seconds * parallel
    )
    frames = estimate_total([sample.frame_count for sample in samples], videos)
    rows = estimate_total([sample.row_count for sample in samples], videos)
    on_gpu = any(not teacher.device.startswith("cpu") for teacher in teachers.values())
    speed = Speed(frames_per_second, tuple(speeds.values()), overlap=on_gpu)
    identities = [teacher.identity for teacher in teachers.values()]
    widths = [TargetWidth(one.classes, one.target == "logits") for one in identities]
    return PlanResult(
        videos=videos,
        sampled=len(samples),
        unreadable=sum(sample.frame_count == 0 for sample in samples),
        frames=_record(frames),
        rows=_record(rows),
        logit_bytes=dict(
            logit_bytes(rows.expected, widths or [TargetWidth(_CLASSES)], config.encodings)
        ),
        frame_store_bytes=round(frames.expected * jpeg_bytes),
        decoded_frames_per_second=round(frames_per_second, 2),
        teacher_rows_per_second={name: round(rate, 2) for name, rate in speeds.items()},
        outputs={name: teacher.identity.classes for name, teacher in teachers.items()},
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
    return "less than 1 s" if hours * 3600 < 1 else duration(hours * 3600)
