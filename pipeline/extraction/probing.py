"""How many rows each video will want: a demux-only look at every file."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distinit.pipeline.cache.plan import PlannedVideo, sampled_indices
from distinit.pipeline.corpus.listing import VideoFile
from distinit.pipeline.video.probe import VideoProbe, probe_video
from distinit.schemas.errors import DecodeError, DecodeKilledError
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["plan_videos"]

_PROBE_TRIES = 3


def plan_videos(
    root: Path, files: Iterable[VideoFile], decode: DecodeConfig, sampling: SamplingConfig
) -> Iterator[PlannedVideo]:
    """Probe ``files`` (several at once) and say how many rows each will want, in order.

    A file that cannot be probed wants none; decoding it says why.
    """

    def plan(file: VideoFile) -> PlannedVideo:
        try:
            probe = _probe(root / file.path, decode)
        except DecodeError:
            return _planned(file, 0, 0.0, 0)
        fps = _frames_per_second(probe)
        rows = len(sampled_indices(sampling, probe.packets, fps))
        return _planned(file, probe.packets, fps, rows)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from pool.map(plan, files)


def _probe(path: Path, decode: DecodeConfig) -> VideoProbe:
    """The probe, tried again when something outside killed it: the plan must not depend on that."""
    for _ in range(_PROBE_TRIES - 1):
        with contextlib.suppress(DecodeKilledError):
            return probe_video(path, decode)
    return probe_video(path, decode)


def _planned(file: VideoFile, frames: int, fps: float, rows: int) -> PlannedVideo:
    return PlannedVideo(
        video_id=file.video_id,
        path=file.path,
        digest=file.digest,
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns,
        probed_frames=frames,
        rows=rows,
        probed_fps=fps,
    )


def _frames_per_second(probe: VideoProbe) -> float:
    if probe.duration_seconds <= 0 or not math.isfinite(probe.duration_seconds):
        return 0.0
    return probe.packets / probe.duration_seconds
