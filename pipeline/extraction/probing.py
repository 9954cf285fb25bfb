"""Probes videos, by demuxing only, for the number of rows to plan for each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from distinit.pipeline.cache.plan import PlannedVideo
from distinit.pipeline.corpus.source import VideoSource
from distinit.pipeline.open_files import files_at_once
from distinit.pipeline.video.probe import VideoProbe, probe_short_videos, probe_video
from distinit.pipeline.video.retry import KillLimit, retry_killed
from distinit.pipeline.video.sampling import count_rows
from distinit.pipeline.video.short import runs_of
from distinit.schemas.corpus import ProbeSummary, VideoFile
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["Prober", "plan_videos", "probe_rows"]

_UNPROBED = ProbeSummary(0, 0.0), 0
_SHORT_BYTES = 4 << 20  # demuxing them takes less time than starting ffmpeg
_MOST_AT_ONCE = 16


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

    def probe_all(self, source: VideoSource, files: Sequence[VideoFile]) -> list[PlannedVideo]:
        """As ``probe`` for each; with one ffmpeg for all if that is possible.

        If ffmpeg fails because of one of them, each half is tried, until that one is alone.
        """
        if len(files) < 2:
            return [self.probe(source, file) for file in files]
        with ExitStack() as stack:
            paths = [stack.enter_context(source.open(f.path, f.digest)) for f in files]
            probes = probe_short_videos(paths, self._decode)
        if probes is None:
            middle = len(files) // 2
            return self.probe_all(source, files[:middle]) + self.probe_all(source, files[middle:])
        return [
            self.probe(source, file)
            if probe is None
            else PlannedVideo(file, *_summary_and_rows(probe, self._sampling))
            for file, probe in zip(files, probes, strict=True)
        ]

    def share_ffmpeg(self, source: VideoSource, file: VideoFile) -> bool:
        """Whether a file may be probed together with others."""
        is_local = file.path not in source.urls
        return is_local and self._decode.damaged == "keep" and 0 < file.size_bytes <= _SHORT_BYTES


def plan_videos(
    prober: Prober, source: VideoSource, files: Sequence[VideoFile]
) -> Iterator[PlannedVideo]:
    """Probe ``files``, several at once; yields them in order with the number of rows to plan.

    A file that cannot be probed gets no rows.
    """
    threads = os.cpu_count() or 1
    pipes = files_at_once() // 2  # both ends are open while ffmpeg starts
    most = max(1, min(_MOST_AT_ONCE, math.ceil(len(files) / threads), pipes // threads))
    runs = runs_of(files, partial(prober.share_ffmpeg, source), most)
    with ThreadPoolExecutor(threads) as pool:
        for planned in pool.map(partial(prober.probe_all, source), runs):
            yield from planned


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
    return _UNPROBED if probe is None else _summary_and_rows(probe, sampling)


def _summary_and_rows(probe: VideoProbe, sampling: SamplingConfig) -> tuple[ProbeSummary, int]:
    rows = count_rows(sampling, probe.pts_N, probe.time_base)
    return ProbeSummary(probe.packet_count, _mean_rate(probe)), rows


def _mean_rate(probe: VideoProbe) -> float:
    """Frames per second; 0 if the timestamps do not give a rate."""
    if probe.duration_seconds <= 0 or not math.isfinite(probe.duration_seconds):
        return 0.0
    return probe.packet_count / probe.duration_seconds
