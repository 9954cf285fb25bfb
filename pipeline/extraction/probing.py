"""Probes videos, by demuxing only, for the number of rows to plan for each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from distinit.pipeline.cache.plan import PlannedVideo
from distinit.pipeline.corpus.source import VideoSource
from distinit.pipeline.video.probe import VideoProbe, probe_video
from distinit.pipeline.video.retry import KillLimit, retry_killed
from distinit.pipeline.video.sampling import count_rows
from distinit.schemas.corpus import ProbeSummary, VideoFile
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["Prober", "plan_videos", "probe_rows"]

_UNPROBED = ProbeSummary(0, 0.0), 0


class Prober:
    """Probes videos; those probed right after their download (``visit``) are not probed again."""

    def __init__(self, decode: DecodeConfig, sampling: SamplingConfig) -> None:
        self._decode = decode
        self._sampling = sampling
        self._probed: dict[str, tuple[ProbeSummary, int]] = {}

    def visit(self, digest: str, path: Path) -> None:
        """Probe a remote video while it is at ``path``: it may be removed from there later."""
        self._probed[digest] = probe_rows(path, self._decode, self._sampling)

    def probe(self, source: VideoSource, file: VideoFile) -> PlannedVideo:
        """``file`` with its number of rows: 0 if the probe fails; decoding reports the reason."""
        if file.digest in self._probed:
            return PlannedVideo(file, *self._probed[file.digest])
        try:
            with source.open(file.path, file.digest) as path:
                return PlannedVideo(file, *probe_rows(path, self._decode, self._sampling))
        except DecodeError:
            return PlannedVideo(file, *_UNPROBED)


def plan_videos(
    prober: Prober, source: VideoSource, files: Iterable[VideoFile]
) -> Iterator[PlannedVideo]:
    """Probe ``files``, several at once; yields them in order with the number of rows to plan.

    A file that cannot be probed gets no rows.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from pool.map(partial(prober.probe, source), files)


def probe_rows(
    path: Path, decode: DecodeConfig, sampling: SamplingConfig
) -> tuple[ProbeSummary, int]:
    """Probe the video at ``path``: its frames, and its rows under ``sampling``.

    Both are 0 if it cannot be probed.
    """

    def attempt(limit: KillLimit) -> VideoProbe | None:
        try:
            return probe_video(path, decode)
        except DecodeError as error:
            limit.check(path.name, error)
            return None

    probe = retry_killed(attempt)
    if probe is None:
        return _UNPROBED
    rows = count_rows(sampling, probe.pts_N, probe.time_base)
    return ProbeSummary(probe.packet_count, _mean_rate(probe)), rows


def _mean_rate(probe: VideoProbe) -> float:
    """Frames per second; 0 if the timestamps do not give a rate."""
    if probe.duration_seconds <= 0 or not math.isfinite(probe.duration_seconds):
        return 0.0
    return probe.packet_count / probe.duration_seconds
