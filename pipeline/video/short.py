"""Decodes several short videos with one ffmpeg, whole and in memory.

Starting ffmpeg takes longer than decoding a second of small frames. Only what is entirely normal is
taken from such a process; everything else is for ``open_video`` to judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.video.binary import find_ffmpeg
from distinit.pipeline.video.checks import check_size
from distinit.pipeline.video.command import DecodeOutputs, decode_several_command
from distinit.pipeline.video.decode import DecodeSummary, FrameBlock, damage_of, summary_of
from distinit.pipeline.video.decode_process import (
    THUMBNAILS,
    frame_shapes,
    frames_per_block,
    view_output,
)
from distinit.pipeline.video.hashing import perceptual_hash
from distinit.pipeline.video.index import PacketTable, StreamTables, TimestampList
from distinit.pipeline.video.process import FFmpegProcess
from distinit.pipeline.video.verdict import FFmpegLog, read_clean_logs
from distinit.pipeline.video.views import View
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig

__all__ = ["DecodedVideo", "ShortDecode", "runs_of"]

_MAX_BYTES = 32 << 20  # of all outputs of all videos
_LISTS = ("packets", "frames", "timestamps")


@dataclass(frozen=True, slots=True)
class DecodedVideo:
    """A whole video in memory: what iterating over its ``VideoStream`` gives."""

    blocks: tuple[FrameBlock, ...]
    time_base: str
    summary: DecodeSummary

    def __iter__(self) -> Iterator[FrameBlock]:
        return iter(self.blocks)


class ShortDecode:
    """One ffmpeg that decodes the first video stream of each of ``paths``.

    Leaving the ``with`` block ends it. ``stop`` lets ``read`` return; any thread may call it.

    Raises FFmpegNotFoundError, and OSError if ffmpeg cannot be executed.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        views: Mapping[str, View],
        config: DecodeConfig,
        block_frames: int,
    ) -> None:
        self._paths = paths
        self._views = views
        self._config = config
        self._block_frames = block_frames
        names = [*_LISTS, THUMBNAILS, *map(view_output, views)]
        outputs = [_of(number, name) for number in range(len(paths)) for name in names]
        self._process = FFmpegProcess(config, outputs, self._command, large_pipes=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.close()

    def _command(self, urls: Mapping[str, str]) -> list[str]:
        outputs = []
        for number in range(len(self._paths)):
            packets, frames, timestamps = (urls[_of(number, name)] for name in _LISTS)
            thumbnails = urls[_of(number, THUMBNAILS)]
            views = {name: urls[_of(number, view_output(name))] for name in self._views}
            outputs.append(DecodeOutputs(packets, frames, timestamps, thumbnails, views))
        return decode_several_command(
            find_ffmpeg(), self._paths, self._views, self._config, outputs
        )

    def stop(self) -> None:
        """End ffmpeg; ``read`` returns None."""
        self._process.stop()

    def read(self) -> list[DecodedVideo | None] | None:
        """The videos; None for one that must be decoded alone, or if all of them must."""
        process = self._process
        with process.awaited():
            outputs = process.read_all(_MAX_BYTES)
            if outputs is None or process.stopping or process.wait() != 0:
                return None
        logs = read_clean_logs(process.log_text(), len(self._paths))
        if logs is None:
            return None
        return [self._video(number, outputs, log) for number, log in enumerate(logs)]

    def _video(
        self, number: int, outputs: Mapping[str, bytearray], log: FFmpegLog
    ) -> DecodedVideo | None:
        streams, frames, timestamps = StreamTables(), PacketTable(), TimestampList()
        feeds = (streams.feed, frames.feed, timestamps.feed)
        lists = [bytes(outputs[_of(number, name)]).split(b"\n") for name in _LISTS]
        most = self._config.max_frames
        if not all(feed(lines, most) for feed, lines in zip(feeds, lists, strict=True)):
            return None
        packets = streams.tables.get(0, PacketTable())
        if len(streams.tables) != 1 or len(timestamps) != frames.count or timestamps.untimed:
            return None
        if not self._is_whole(self._paths[number], log, frames, packets):
            return None
        shapes = frame_shapes(self._views, frames)
        pixels = {name: outputs[_of(number, name)] for name in shapes}
        if any(len(pixels[n]) != frames.count * math.prod(shapes[n]) for n in shapes):
            return None
        arrays = {
            name: np.frombuffer(pixels[name], np.uint8).reshape(-1, *shape)
            for name, shape in shapes.items()
        }
        size = frames_per_block(shapes, self._block_frames)
        pts_N = timestamps.wait_for(0, frames.count)
        starts = range(0, frames.count, size)
        blocks = [self._block(arrays, pts_N, start, start + size) for start in starts]
        return DecodedVideo(tuple(blocks), str(frames.time_base), summary_of(frames, log, None))

    def _is_whole(
        self, path: Path, log: FFmpegLog, frames: PacketTable, packets: PacketTable
    ) -> bool:
        if frames.count == 0:
            return False
        try:
            check_size(path, frames, self._config)
            return damage_of(path, self._config, log, frames.count, packets, 0) is None
        except DecodeError:
            return False

    def _block(
        self,
        pixels: Mapping[str, NDArray[np.uint8]],
        pts_N: NDArray[np.int64],
        start: int,
        stop: int,
    ) -> FrameBlock:
        hash_N = perceptual_hash(pixels[THUMBNAILS][start:stop])
        views = {name: pixels[view_output(name)][start:stop] for name in self._views}
        return FrameBlock(start, pts_N[start:stop], hash_N, MappingProxyType(views))


def _of(number: int, name: str) -> str:
    """Name of an output of the video with this number."""
    return f"{number} {name}"


def runs_of[T](items: Iterable[T], may_share: Callable[[T], bool], most: int) -> Iterator[list[T]]:
    """All items in order: up to ``most`` consecutive ones that may share, the others alone."""
    run: list[T] = []
    for item in items:
        shares = may_share(item)
        if run and (not shares or len(run) == most):
            yield run
            run = []
        if shares:
            run.append(item)
        else:
            yield [item]
    if run:
        yield run
