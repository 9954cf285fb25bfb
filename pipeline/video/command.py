"""Builds ffmpeg command lines: one pipe per output, one process per video or for several."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ffmpeg as ffmpeg_python

from distinit.pipeline.video.binary import FFmpeg
from distinit.pipeline.video.hashing import THUMBNAIL_FILTERS
from distinit.pipeline.video.views import View
from distinit.schemas.video import DecodeConfig

__all__ = ["DecodeOutputs", "decode_command", "decode_several_command", "demux_command"]

# Containers that only hold media. Left out on purpose: concat, hls, dash, image sequences, lavfi
# and other inputs that are scripts, or that open further files or URLs.
_CONTAINERS = (
    "3g2,3gp,asf,av1,avi,dirac,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,live_flv,m4a,m4v,"
    "matroska,mj2,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,swf,vc1,vvc,webm,wtv,"
    "yuv4mpegpipe"
)
# Capital V selects video streams without attached pictures (cover art).
_VIDEO_STREAMS = "V"


@dataclass(frozen=True, slots=True)
class DecodeOutputs:
    """URLs (``pipe:N``) that ffmpeg writes its outputs to."""

    packets: str
    frames: str
    timestamps: str
    thumbnails: str
    views: Mapping[str, str]


def decode_command(
    ffmpeg: FFmpeg,
    path: Path,
    views: Mapping[str, View],
    config: DecodeConfig,
    outputs: DecodeOutputs,
    stream_number: int = 0,
) -> list[str]:
    """Decode video stream ``stream_number`` once, into all views, thumbnails and the frame index.

    The index needs two outputs. framecrc lists the size after rotation, the time base and the
    durations, but its muxer changes timestamps that run backwards; the metadata filter prints the
    frames' own timestamps. A third output, the first on the command line, lists the packets of all
    video streams for comparison.
    """
    return _compile(ffmpeg, _decode_targets(ffmpeg, path, views, config, outputs, stream_number))


def decode_several_command(
    ffmpeg: FFmpeg,
    paths: Sequence[Path],
    views: Mapping[str, View],
    config: DecodeConfig,
    outputs: Sequence[DecodeOutputs],
) -> list[str]:
    """As ``decode_command`` for the first video stream of each file, with outputs for each."""
    targets = [
        target
        for path, urls in zip(paths, outputs, strict=True)
        for target in _decode_targets(ffmpeg, path, views, config, urls, 0)
    ]
    return _compile(ffmpeg, targets)


def _decode_targets(
    ffmpeg: FFmpeg,
    path: Path,
    views: Mapping[str, View],
    config: DecodeConfig,
    outputs: DecodeOutputs,
    stream_number: int,
) -> list[ffmpeg_python.nodes.OutputStream]:
    options: dict[str, object] = {"threads": config.threads, "max_pixels": config.max_pixels}
    if config.hwaccel != "none":
        options["hwaccel"] = config.hwaccel
    source = _open(path, options)
    video = source[f"{_VIDEO_STREAMS}:{stream_number}"]
    timestamps = outputs.timestamps.replace(":", r"\:")
    stamp = f"metadata=mode=print:file='{timestamps}':direct=1"
    targets = [
        _packet_list(source[_VIDEO_STREAMS], outputs.packets),
        video.output(
            outputs.frames,
            **_passthrough(ffmpeg),
            **{"format": "framecrc", "c:v": "wrapped_avframe", "flush_packets": 1},
            # The filter prints only frames that have metadata, so every frame gets some.
            vf=f"metadata=mode=add:key=i:value=1,{stamp}",
        ),
        _raw_frames(ffmpeg, video, outputs.thumbnails, THUMBNAIL_FILTERS),
    ]
    targets += [
        _raw_frames(ffmpeg, video, outputs.views[name], view.filters())
        for name, view in views.items()
    ]
    return targets


def demux_command(ffmpeg: FFmpeg, paths: Sequence[Path], outputs: Sequence[str]) -> list[str]:
    """List the packets of every video stream of each file, in its output; decode nothing."""
    targets = [
        _packet_list(_open(path, {})[_VIDEO_STREAMS], output)
        for path, output in zip(paths, outputs, strict=True)
    ]
    return _compile(ffmpeg, targets)


def demux_all_command(ffmpeg: FFmpeg, path: Path, output: str) -> list[str]:
    """List the packets of every stream; decode nothing."""
    options = {"format": "framecrc", "c": "copy", "copy_unknown": None, "map": "0"}
    return _compile(ffmpeg, [_open(path, {}).output(output, **options)])


def _open(path: Path, options: Mapping[str, object]) -> ffmpeg_python.nodes.FilterableStream:
    # An absolute file: URL, so that ffmpeg takes no name for an option, a protocol or a pattern.
    url = "file:" + os.path.abspath(path)  # noqa: PTH100 (Path.absolute keeps "..")
    return ffmpeg_python.input(
        url, protocol_whitelist="file", format_whitelist=_CONTAINERS, **options
    )


def _packet_list(
    video: ffmpeg_python.nodes.FilterableStream, url: str
) -> ffmpeg_python.nodes.OutputStream:
    options = {"format": "framecrc", "c": "copy", "copyinkf": None, "flush_packets": 1}
    return video.output(url, **options)


def _raw_frames(
    ffmpeg: FFmpeg, video: ffmpeg_python.nodes.FilterableStream, url: str, filters: str
) -> ffmpeg_python.nodes.OutputStream:
    options = {"format": "rawvideo", "c:v": "rawvideo", "threads": 1, "vf": filters}
    return video.output(url, **_passthrough(ffmpeg), **options)


def _passthrough(ffmpeg: FFmpeg) -> dict[str, str]:
    pairs = zip(ffmpeg.passthrough[::2], ffmpeg.passthrough[1::2], strict=True)
    return {option.removeprefix("-"): value for option, value in pairs}


def _compile(ffmpeg: FFmpeg, outputs: list[ffmpeg_python.nodes.OutputStream]) -> list[str]:
    # Level info prints the declared duration; level+ marks which lines are errors.
    quiet = ["-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info"]
    command = [str(ffmpeg.path), *quiet, "-y", "-copyts", "-filter_threads", "1"]
    argv: list[str] = ffmpeg_python.compile(ffmpeg_python.merge_outputs(*outputs), cmd=command)
    return argv
