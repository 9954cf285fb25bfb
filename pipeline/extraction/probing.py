"""Probes videos, by demuxing only, for the number of rows to plan for each."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.cache.plan import PlannedVideo
from distinit.pipeline.corpus.source import VideoFile, VideoSource
from distinit.pipeline.video.probe import VideoProbe, probe_video
from distinit.pipeline.video.sampling import count_rows
from distinit.schemas.errors import DecodeError, DecodeKilledError
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["Announced", "Prober", "announced_by", "plan_videos"]

_PROBE_TRIES = 3


@dataclass(frozen=True, slots=True)
class Announced:
    """Shown frames of a video, their mean rate and their rows, according to its packets."""

    frames: int
    fps: float
    rows: int


class Prober:
    """Probes videos; those probed right after their download (``visit``) are not probed again."""

    def __init__(self, decode: DecodeConfig, sampling: SamplingConfig) -> None:
        self._decode = decode
        self._sampling = sampling
        self._seen: dict[str, Announced | None] = {}

    def visit(self, digest: str, path: Path) -> None:
        """Probe a remote video while it is at ``path``: it may be removed from there later."""
        self._seen[digest] = announced_by(path, self._decode, self._sampling)

    def probe(self, source: VideoSource, file: VideoFile) -> Announced | None:
        """The probe of ``file``; None if it fails, in which case decoding reports the reason."""
        if file.digest in self._seen:
            return self._seen[file.digest]
        try:
            with source.open(file.path, file.digest) as path:
                return announced_by(path, self._decode, self._sampling)
        except DecodeError:
            return None


def plan_videos(
    prober: Prober, source: VideoSource, files: Iterable[VideoFile]
) -> Iterator[PlannedVideo]:
    """Probe ``files``, several at once; yields them in order with the number of rows to plan.

    A file that cannot be probed gets no rows.
    """

    def plan(file: VideoFile) -> PlannedVideo:
        return _planned(file, prober.probe(source, file) or Announced(0, 0.0, 0))

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from pool.map(plan, files)


def announced_by(path: Path, decode: DecodeConfig, sampling: SamplingConfig) -> Announced | None:
    """Probe the video at ``path``; None if it cannot be probed."""
    try:
        probe = _probe(path, decode)
    except DecodeError:
        return None
    rows = count_rows(sampling, probe.pts_N, probe.time_base)
    return Announced(probe.packet_count, _mean_rate(probe), rows)


def _probe(path: Path, decode: DecodeConfig) -> VideoProbe:
    """Probe; retries when ffprobe is killed from outside, on which no plan may depend."""
    for _ in range(_PROBE_TRIES - 1):
        with contextlib.suppress(DecodeKilledError):
            return probe_video(path, decode)
    return probe_video(path, decode)


def _planned(file: VideoFile, announced: Announced) -> PlannedVideo:
    return PlannedVideo(
        video_id=file.video_id,
        path=file.path,
        digest=file.digest,
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns,
        probed_frames=announced.frames,
        rows=announced.rows,
        probed_fps=announced.fps,
    )


def _mean_rate(probe: VideoProbe) -> float:
    """Frames per second; 0 if the timestamps do not give a rate."""
    if probe.duration_seconds <= 0 or not math.isfinite(probe.duration_seconds):
        return 0.0
    return probe.packet_count / probe.duration_seconds
