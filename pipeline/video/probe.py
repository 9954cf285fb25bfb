"""Demuxes videos to count their packets and find their times. Nothing is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from distinit.pipeline.video.binary import FFmpeg, find_ffmpeg
from distinit.pipeline.video.checks import (
    check_ended,
    check_file,
    check_size,
    damaged_error,
    decode_error,
    read_errors,
    too_many_frames,
)
from distinit.pipeline.video.command import demux_all_command, demux_command
from distinit.pipeline.video.container import asf_holes, truncation_reason
from distinit.pipeline.video.index import PacketTable, StreamTables
from distinit.pipeline.video.process import FFmpegProcess
from distinit.pipeline.video.verdict import (
    FFmpegLog,
    duration_gap,
    early_end,
    no_frames_reason,
    read_log,
)
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig

__all__ = ["VideoProbe", "broken_file", "find_main_stream", "probe_short_videos", "probe_video"]

_PACKETS = "packets"  # name of the output that lists packets
_MAX_LISTED_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class VideoProbe:
    """The main video stream of a file. Width and height in pixels, before rotation.

    ``packet_count``: packets that are shown, about as many as frames; packets that an edit list
    hides are not counted.
    ``pts_N``: their presentation times in display order, int64, in units of ``time_base``.
    """

    packet_count: int
    width: int
    height: int
    duration_seconds: float
    time_base: Fraction
    pts_N: np.ndarray


def probe_video(path: Path, config: DecodeConfig) -> VideoProbe:
    """Demux ``path`` once and measure its main video stream.

    Raises:
        DecodeError: The file is missing, is not a video, or exceeds a limit of ``config``; or it
            is truncated and ``config.damaged`` is "fail".
        FFmpegNotFoundError: There is no usable ffmpeg.
    """
    check_file(path)
    ffmpeg = find_ffmpeg()
    streams, log = _demux(ffmpeg, path, config)
    table = streams.tables.get(streams.main_stream, PacketTable())
    if table.count == 0:
        raise decode_error(path, no_frames_reason(log))
    check_size(path, table, config)
    if config.damaged == "fail" and (why := broken_file(ffmpeg, path, config, log, table)):
        raise damaged_error(path, why)
    return _probe_of(table)


def probe_short_videos(
    paths: Sequence[Path], config: DecodeConfig
) -> list[VideoProbe | None] | None:
    """Probe several small files with one ffmpeg, since starting it takes longer than its work.

    Each result is that of ``probe_video``, or None if that must tell what is wrong with the file.
    Returns None if nothing is known of any file: one of them makes ffmpeg fail. ``config.damaged``
    must be "keep". Raises FFmpegNotFoundError.
    """
    names = [f"{_PACKETS} {number}" for number in range(len(paths))]
    ffmpeg = find_ffmpeg()
    with (
        FFmpegProcess(
            config,
            names,
            lambda urls: demux_command(ffmpeg, paths, [urls[n] for n in names]),
            large_pipes=False,
        ) as process,
        process.awaited(),
    ):
        listed = process.read_all(_MAX_LISTED_BYTES)
        if listed is None or process.wait() != 0:
            return None
        if read_log(process.log_text()).stop_signal is not None:
            return None
    return [_listed_probe(path, listed[n], config) for path, n in zip(paths, names, strict=True)]


def _listed_probe(path: Path, listed: bytearray, config: DecodeConfig) -> VideoProbe | None:
    streams = StreamTables()
    if not streams.feed(bytes(listed).split(b"\n"), config.max_frames):
        return None
    table = streams.tables.get(streams.main_stream, PacketTable())
    try:
        check_size(path, table, config)
    except DecodeError:
        return None
    return _probe_of(table) if table.count else None


def _probe_of(table: PacketTable) -> VideoProbe:
    return VideoProbe(
        packet_count=table.count,
        width=table.width,
        height=table.height,
        duration_seconds=table.span_seconds,
        time_base=table.time_base or Fraction(1),
        pts_N=np.sort(table.times()[0]),
    )


def find_main_stream(path: Path, config: DecodeConfig) -> int:
    """Number of the main one of several video streams. Raises DecodeError as ``probe_video``."""
    return _demux(find_ffmpeg(), path, config)[0].main_stream


def _demux(ffmpeg: FFmpeg, path: Path, config: DecodeConfig) -> tuple[StreamTables, FFmpegLog]:
    streams = StreamTables()
    with FFmpegProcess(
        config, [_PACKETS], lambda urls: demux_command(ffmpeg, [path], [urls[_PACKETS]])
    ) as process:
        with process.awaited():
            if not streams.feed(process.pipes[_PACKETS].lines(), config.max_frames):
                process.kill(too_many_frames(config))
            status = process.wait()
        log = read_log(process.log_text())
        check_ended(path, process.violation, status, log)
    return streams, log


def broken_file(
    ffmpeg: FFmpeg, path: Path, config: DecodeConfig, log: FFmpegLog, packets: PacketTable
) -> str | None:
    """Why the file is truncated or has holes (point 5 of ``verdict``), or None.

    Raises DecodeError if the file can no longer be read.
    """
    with read_errors(path):
        truncated, holes = early_end(log) or truncation_reason(path), asf_holes(path)
    if truncated:
        return f"truncated: {truncated}"
    if holes:
        return holes
    if duration_gap(log.declared_seconds, packets.reach_seconds, packets.count) is None:
        return None
    # A longer audio track also explains it, so measure all streams.
    reach = _longest_reach_seconds(ffmpeg, path, config)
    if duration_gap(log.declared_seconds, reach, packets.count) is None:
        return None
    return f"truncated: {reach:.2f} s of the {log.declared_seconds:.2f} s that its header declares"


def _longest_reach_seconds(ffmpeg: FFmpeg, path: Path, config: DecodeConfig) -> float:
    streams = StreamTables()
    with (
        FFmpegProcess(
            config, [_PACKETS], lambda urls: demux_all_command(ffmpeg, path, urls[_PACKETS])
        ) as process,
        process.awaited(),
    ):
        streams.feed(process.pipes[_PACKETS].lines())
    return max((table.reach_seconds for table in streams.tables.values()), default=0.0)
