"""How many rows each video will want: a demux-only look at every file."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distinit.pipeline.cache.plan import PlannedVideo, sampled_indices
from distinit.pipeline.corpus.source import VideoFile, VideoSource
from distinit.pipeline.video.probe import VideoProbe, probe_video
from distinit.schemas.errors import DecodeError, DecodeKilledError
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["Prober", "frames_per_second", "plan_videos"]

_PROBE_TRIES = 3


class Prober:
    """Probes videos; what was probed while it was at hand (``look``) is not probed again."""

    def __init__(self, decode: DecodeConfig) -> None:
        self._decode = decode
        self._seen: dict[str, VideoProbe | None] = {}

    def look(self, digest: str, path: Path) -> None:
        """Probe a remote video now that it lies at ``path``: it may be gone later."""
        try:
            self._seen[digest] = _probe(path, self._decode)
        except DecodeError:
            self._seen[digest] = None

    def probe(self, source: VideoSource, file: VideoFile) -> VideoProbe | None:
        """What ``file`` holds, None if it cannot be probed; decoding it says why."""
        if file.digest in self._seen:
            return self._seen[file.digest]
        try:
            with source.open(file.path, file.digest) as path:
                return _probe(path, self._decode)
        except DecodeError:
            return None


def plan_videos(
    prober: Prober, source: VideoSource, files: Iterable[VideoFile], sampling: SamplingConfig
) -> Iterator[PlannedVideo]:
    """Probe ``files`` (several at once) and say how many rows each will want, in order.

    A file that cannot be probed wants none.
    """

    def plan(file: VideoFile) -> PlannedVideo:
        probe = prober.probe(source, file)
        if probe is None:
            return _planned(file, 0, 0.0, 0)
        fps = frames_per_second(probe)
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


def frames_per_second(probe: VideoProbe) -> float:
    """Mean rate of a video; 0 if its timestamps do not say."""
    if probe.duration_seconds <= 0 or not math.isfinite(probe.duration_seconds):
        return 0.0
    return probe.packets / probe.duration_seconds
