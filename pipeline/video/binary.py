"""Finds an ffmpeg and the options that its version needs to keep every frame."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from distinit.schemas.errors import FFmpegNotFoundError

__all__ = ["FFMPEG_VARIABLE", "FFmpeg", "find_ffmpeg", "supports_cuda"]

FFMPEG_VARIABLE = "DISTINIT_FFMPEG"
_CHECK_SECONDS = 30.0

# Newest first. All of them keep every frame and the time base of the source.
_PASSTHROUGH = (
    ("-fps_mode", "passthrough", "-enc_time_base", "demux"),  # 6.1 and later
    ("-fps_mode", "passthrough", "-enc_time_base", "-1"),  # 5.1 .. 6.0
    ("-vsync", "passthrough", "-enc_time_base", "-1"),  # before 5.1
)


@dataclass(frozen=True, slots=True)
class FFmpeg:
    """A usable ffmpeg: its path, its version, and its options to keep every frame."""

    path: Path
    version: str
    passthrough: tuple[str, ...]


def find_ffmpeg() -> FFmpeg:
    """The ffmpeg of ``DISTINIT_FFMPEG``, else of PATH, else of the imageio-ffmpeg wheel.

    If the variable names an unusable file, nothing else is tried. Raises FFmpegNotFoundError if no
    ffmpeg works.
    """
    problems = []
    for origin, path in _candidates(os.environ.get(FFMPEG_VARIABLE)):
        try:
            return _inspect(path)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            problems.append(f"{origin}: {path}: {error}")
    raise FFmpegNotFoundError(
        "no usable ffmpeg",
        expected="ffmpeg 4.4 or later",
        found="; ".join(problems) or "none in PATH, and no imageio-ffmpeg wheel with a binary",
        remedy=f"pip install imageio-ffmpeg, or set {FFMPEG_VARIABLE} to an ffmpeg binary",
    )


def _candidates(from_variable: str | None) -> Iterator[tuple[str, str]]:
    if from_variable:
        yield FFMPEG_VARIABLE, from_variable
        return
    if in_path := shutil.which("ffmpeg"):
        yield "PATH", in_path
    try:
        import imageio_ffmpeg

        yield "imageio-ffmpeg", imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return


@lru_cache(maxsize=16)
def _inspect(path: str) -> FFmpeg:
    first_line = _run([path, "-hide_banner", "-version"]).stdout.decode(errors="replace")
    words = first_line.split(maxsplit=3)
    if words[:2] != ["ffmpeg", "version"] or len(words) < 3:
        raise ValueError("its first line is not 'ffmpeg version ...'")
    for options in _PASSTHROUGH:
        if _accepts(path, options):
            return FFmpeg(Path(path), words[2], options)
    raise ValueError(f"version {words[2]} has no option to keep every frame")


def _accepts(path: str, options: tuple[str, ...]) -> bool:
    """Whether ffmpeg can process one 2x2 frame with these output options."""
    raw = ["-f", "rawvideo", "-pix_fmt", "gray", "-video_size", "2x2"]
    argv = [path, "-v", "quiet", *raw, "-i", "pipe:0", *options, "-f", "null", "-"]
    try:
        _run(argv, stdin=b"\0" * 4)
    except subprocess.CalledProcessError:
        return False
    return True


@lru_cache(maxsize=16)
def supports_cuda(ffmpeg: FFmpeg) -> bool:
    """Whether this ffmpeg can open a CUDA device on this machine."""
    raw = ["-f", "rawvideo", "-pix_fmt", "gray", "-video_size", "2x2", "-i", "pipe:0"]
    argv = [str(ffmpeg.path), "-v", "quiet", "-init_hw_device", "cuda=gpu", *raw, "-f", "null", "-"]
    try:
        _run(argv, stdin=b"\0" * 4)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _run(argv: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        argv, input=stdin, capture_output=True, check=True, timeout=_CHECK_SECONDS
    )
