"""What a video holds, found by demuxing it: packets and their span. Nothing is decoded."""

from __future__ import annotations

import os
import signal
import stat
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.video.binary import FFmpeg, find_ffmpeg
from distinit.pipeline.video.command import demux_all_command, demux_command
from distinit.pipeline.video.container import missing_end
from distinit.pipeline.video.index import PacketTable, tables_by_stream
from distinit.pipeline.video.process import FFmpegProcess
from distinit.pipeline.video.verdict import (
    FFmpegLog,
    duration_gap,
    early_end,
    no_frames_reason,
    read_log,
)
from distinit.schemas.errors import DecodeError, DecodeKilledError
from distinit.schemas.video import DecodeConfig

__all__ = ["VideoProbe", "check_file", "check_size", "check_whole", "decode_error", "probe_video"]

_SENT_BY_OTHERS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
_PARTIAL_REMEDY = "fetch or encode the file again, or leave it out"


@dataclass(frozen=True, slots=True)
class VideoProbe:
    """A video's size before rotation, and its packets: about as many as frames."""

    packets: int
    width: int
    height: int
    duration_seconds: float


def probe_video(path: Path, config: DecodeConfig) -> VideoProbe:
    """Demux ``path`` once and count the packets of its first video stream.

    Raises DecodeError with the reason when the file is missing, no video, truncated, or beyond
    the limits of ``config``; FFmpegNotFoundError.
    """
    check_file(path)
    ffmpeg = find_ffmpeg()
    table = PacketTable()
    with FFmpegProcess(config) as process:
        pipe = process.new_pipe()
        process.start(demux_command(ffmpeg, path, pipe.url))
        with process.awaited():
            if not table.feed(pipe.lines(), config.max_frames):
                process.kill(too_many_frames(config))
            status = process.wait()
        log = read_log(process.log_text())
        check_ended(path, process.violation, status, log)
    if table.count == 0:
        raise decode_error(path, no_frames_reason(log))
    check_size(path, table, config)
    check_whole(ffmpeg, path, config, log, table)
    return VideoProbe(table.count, table.width, table.height, table.span_seconds)


def decode_error(path: Path, reason: str, remedy: str | None = None) -> DecodeError:
    """The error for one video: its name and the reason, no folder (reasons are stored)."""
    return DecodeError(f"{path.name}: {reason}", remedy=remedy)


def check_file(path: Path) -> None:
    """Raise DecodeError unless ``path`` is a readable, regular, non-empty file."""
    try:
        found = path.stat()
    except OSError as error:
        raise decode_error(path, f"cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise decode_error(path, "not a regular file")
    if not os.access(path, os.R_OK):
        raise decode_error(path, "cannot be opened: no permission to read it")
    if found.st_size == 0:
        raise decode_error(path, "the file is empty (0 bytes)", remedy=_PARTIAL_REMEDY)


def check_size(path: Path, table: PacketTable, config: DecodeConfig) -> None:
    """Raise DecodeError when pictures are larger than ``config.max_pixels``, or have no size."""
    if table.width < 1 or table.height < 1:
        raise decode_error(path, "no picture size: the stream's parameters cannot be read")
    if table.width * table.height > config.max_pixels:
        raise decode_error(
            path,
            f"pictures of {table.width}x{table.height} are too large: "
            f"more than max_pixels={config.max_pixels}",
        )


def too_many_frames(config: DecodeConfig) -> str:
    """The violation of ``max_frames``."""
    return f"has more frames than max_frames={config.max_frames}"


def check_ended(path: Path, violation: str | None, status: int, log: FFmpegLog) -> None:
    """Raise DecodeError when a limit ended ffmpeg, or ffmpeg ended in error.

    Raises DecodeKilledError when a signal ended it that did not come from here.
    """
    if violation is not None:
        raise decode_error(path, violation)
    sent = log.stop_signal if log.stop_signal is not None else -status
    if sent in _SENT_BY_OTHERS:
        name = signal.Signals(sent).name
        raise DecodeKilledError(f"{path.name}: ffmpeg was ended from outside by {name}")
    if status < 0:
        raise decode_error(path, f"ffmpeg crashed with signal {-status}")
    if status > 0:
        raise decode_error(path, no_frames_reason(log))


def check_whole(
    ffmpeg: FFmpeg, path: Path, config: DecodeConfig, log: FFmpegLog, packets: PacketTable
) -> None:
    """Raise DecodeError when the file ends early (points 4, 5 and 7 of ``verdict``)."""
    if said := early_end(log):
        raise decode_error(path, f"the file is truncated: {said}", remedy=_PARTIAL_REMEDY)
    if said := missing_end(path):
        raise decode_error(path, f"the file is truncated: {said}", remedy=_PARTIAL_REMEDY)
    if duration_gap(log.declared_seconds, packets.reach_seconds, packets.count) is None:
        return
    # A longer sound track is the innocent explanation: look at all streams.
    found = _longest_reach(ffmpeg, path, config)
    if duration_gap(log.declared_seconds, found, packets.count) is not None:
        raise decode_error(
            path,
            f"the file is truncated: {found:.2f} s of the {log.declared_seconds:.2f} s that its "
            "header declares",
            remedy=_PARTIAL_REMEDY,
        )


def _longest_reach(ffmpeg: FFmpeg, path: Path, config: DecodeConfig) -> float:
    with FFmpegProcess(config) as process:
        pipe = process.new_pipe()
        process.start(demux_all_command(ffmpeg, path, pipe.url))
        with process.awaited():
            tables = tables_by_stream(pipe.lines())
    return max((table.reach_seconds for table in tables.values()), default=0.0)
