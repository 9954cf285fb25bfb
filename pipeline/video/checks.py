"""The conditions under which a video fails: its file, its size, and how ffmpeg ended."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distinit.pipeline.video.index import PacketTable
from distinit.pipeline.video.verdict import FFmpegLog, no_frames_reason
from distinit.schemas.errors import DecodeError, DecodeKilledError
from distinit.schemas.video import DecodeConfig

__all__ = [
    "check_ended",
    "check_file",
    "check_size",
    "damaged_error",
    "decode_error",
    "read_errors",
    "too_many_frames",
]

_OUTSIDE_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
_PARTIAL_REMEDY = "fetch or encode the file again, or leave it out"


def decode_error(path: Path, reason: str, remedy: str | None = None) -> DecodeError:
    """The error for one video: file name and reason. Reasons are stored, so no folder is named."""
    return DecodeError(f"{path.name}: {reason}", remedy=remedy)


def damaged_error(path: Path, text: str) -> DecodeError:
    """The error for a damaged video that must not be kept."""
    return decode_error(path, f"damaged: {text}", remedy=_PARTIAL_REMEDY)


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into the DecodeError of one video, which may be removed at any time."""
    try:
        yield
    except OSError as error:
        raise decode_error(path, f"cannot be read: {error.strerror}") from error


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
    """Raise DecodeError if frames are larger than ``config.max_pixels``, or have no size."""
    if table.width < 1 or table.height < 1:
        raise decode_error(path, "no picture size: the stream's parameters cannot be read")
    if table.width * table.height > config.max_pixels:
        raise decode_error(
            path,
            f"pictures of {table.width}x{table.height} are too large: "
            f"more than max_pixels={config.max_pixels}",
        )


def too_many_frames(config: DecodeConfig) -> str:
    """The text of a violation of ``max_frames``."""
    return f"has more frames than max_frames={config.max_frames}"


def check_ended(path: Path, violation: str | None, status: int, log: FFmpegLog) -> None:
    """Raise DecodeError if a limit ended ffmpeg, or ffmpeg failed.

    Raises DecodeKilledError if it was ended by a signal that this process did not send.
    """
    if violation is not None:
        raise decode_error(path, violation)
    sent = log.stop_signal if log.stop_signal is not None else -status
    if sent in _OUTSIDE_SIGNALS:
        name = signal.Signals(sent).name
        raise DecodeKilledError(f"{path.name}: ffmpeg was ended from outside by {name}")
    if status < 0:
        raise decode_error(path, f"ffmpeg crashed with signal {-status}")
    if status > 0:
        raise decode_error(path, no_frames_reason(log))
