"""Decoding a whole video in one ffmpeg process: frames, timestamps, hashes; all or an error."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np

from distinit.pipeline.video.binary import FFmpeg, find_ffmpeg, supports_cuda
from distinit.pipeline.video.blocks import FrameBlock, FrameReader
from distinit.pipeline.video.command import DecodeOutputs, decode_command
from distinit.pipeline.video.hashing import THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, perceptual_hash
from distinit.pipeline.video.index import PacketTable, TimestampList
from distinit.pipeline.video.pipes import Pipe
from distinit.pipeline.video.probe import (
    check_ended,
    check_file,
    check_size,
    check_whole,
    decode_error,
    too_many_frames,
)
from distinit.pipeline.video.process import FFmpegProcess
from distinit.pipeline.video.verdict import FFmpegLog, no_frames_reason, read_log
from distinit.pipeline.video.views import View
from distinit.schemas.video import DecodeConfig

__all__ = ["DecodeSummary", "FrameBlock", "VideoStream", "open_video", "usable_decode"]

# A block of 32 8K frames would take 3 GiB, and three blocks of a view can exist at a time.
MAX_BLOCK_BYTES = 64 << 20
_AHEAD_BYTES = 32 << 20
_THUMBNAILS = "\0thumbnails"  # no view can be called that

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DecodeSummary:
    """What a completely decoded video turned out to be. Size is after rotation, pixels."""

    frame_count: int
    width: int
    height: int
    time_base: str
    duration_seconds: float
    fps: float
    decoder_errors: int = 0


def open_video(
    path: Path, views: Mapping[str, View], config: DecodeConfig, *, block_frames: int = 32
) -> VideoStream:
    """Prepare to decode ``path``; ffmpeg starts when the stream is entered (``with``).

    A block has ``block_frames`` frames, fewer at the end and where a block of one view would
    exceed 64 MiB. Raises DecodeError for a file that cannot be opened, FFmpegNotFoundError.
    """
    if block_frames < 1:
        raise ValueError(f"block_frames must be at least 1, not {block_frames}")
    check_file(path)
    config, warning = usable_decode(config)
    if warning:
        _tell_once(warning)
    return VideoStream(find_ffmpeg(), path, views, config, block_frames)


def usable_decode(config: DecodeConfig) -> tuple[DecodeConfig, str]:
    """``config`` as this machine can follow it, and what to tell people of the difference or ''.

    Raises FFmpegNotFoundError.
    """
    ffmpeg = find_ffmpeg()
    if config.hwaccel == "none" or supports_cuda(ffmpeg):
        return config, ""
    warning = (
        f"hwaccel cuda: {ffmpeg.path} {ffmpeg.version} cannot open a CUDA device here; videos are "
        "decoded in software"
    )
    return config.model_copy(update={"hwaccel": "none"}), warning


@lru_cache(maxsize=16)
def _tell_once(message: str) -> None:
    """Warn, but not again for every video."""
    _logger.warning(message)


class VideoStream:
    """Iterator over the FrameBlocks of one video; ``summary`` is set when it is exhausted.

    Exhaustion without an exception means: the video is whole (``verdict``) and every frame was
    delivered. Raises DecodeError otherwise, perhaps after some blocks; what was delivered
    before must then be discarded. Leaving the ``with`` block ends ffmpeg at any time.
    """

    def __init__(
        self,
        ffmpeg: FFmpeg,
        path: Path,
        views: Mapping[str, View],
        config: DecodeConfig,
        block_frames: int,
    ) -> None:
        self.summary: DecodeSummary | None = None
        self._ffmpeg = ffmpeg
        self._path = path
        self._views = dict(views)
        self._config = config
        self._block_frames = block_frames
        self._packets = PacketTable()
        self._frames = PacketTable()
        self._pts = TimestampList()
        self._readers: dict[str, FrameReader] = {}
        self._index_threads: list[threading.Thread] = []
        self._delivered = 0
        self._reading: bool | None = None  # None: it was not looked yet; False: no frame came
        self._process: FFmpegProcess | None = None
        self._blocks: Iterator[FrameBlock] | None = None

    def __enter__(self) -> Self:
        self._process = FFmpegProcess(self._config)
        try:
            self._start(self._process)
        except BaseException:
            self.close()
            raise
        self._blocks = self._decoded(self._process)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FrameBlock:
        if self._blocks is None:
            raise RuntimeError("a VideoStream is used as: with open_video(...) as stream")
        return next(self._blocks)

    @property
    def pid(self) -> int:
        """Process id of the ffmpeg that decodes."""
        if self._process is None:
            raise RuntimeError("a VideoStream is used as: with open_video(...) as stream")
        return self._process.pid

    @property
    def time_base(self) -> str:
        """Seconds a unit of ``pts_N``, as "1/12800"; known from the first block on."""
        return str(self._frames.time_base)

    def close(self) -> None:
        """End ffmpeg, if it still runs, and the threads that read from it."""
        if self._process is not None:
            self._process.close()

    def _start(self, process: FFmpegProcess) -> None:
        packets, frames, timestamps, thumbnails = (process.new_pipe() for _ in range(4))
        pipes = {name: process.new_pipe() for name in self._views}
        outputs = DecodeOutputs(
            packets=packets.url,
            frames=frames.url,
            timestamps=timestamps.url,
            thumbnails=thumbnails.url,
            views={name: pipe.url for name, pipe in pipes.items()},
        )
        raw = {**pipes, _THUMBNAILS: thumbnails}
        self._readers = {name: FrameReader(process, pipe) for name, pipe in raw.items()}
        process.start(decode_command(self._ffmpeg, self._path, self._views, self._config, outputs))
        indexes = ((self._packets, packets), (self._frames, frames), (self._pts, timestamps))
        self._index_threads = [
            process.run_thread(self._index, "ffmpeg-index", process, target, pipe)
            for target, pipe in indexes
        ]

    def _index(
        self, process: FFmpegProcess, target: PacketTable | TimestampList, pipe: Pipe
    ) -> None:
        if not target.feed(pipe.lines(), self._config.max_frames):
            process.kill(too_many_frames(self._config))

    def read_ahead(self) -> None:
        """Wait for the first frame, then read on in the background: 32 MiB of each view.

        Otherwise ffmpeg stands until the first block is asked for, and then a block ahead. Of
        several open videos only one would decode. Raises DecodeError for frames too large.
        """
        if self._process is None:
            raise RuntimeError("a VideoStream is used as: with open_video(...) as stream")
        self._begin(self._process, _AHEAD_BYTES)

    def _begin(self, process: FFmpegProcess, ahead_bytes: int) -> None:
        with process.awaited():
            started = self._frames.wait_for_header()
        if started:
            check_size(self._path, self._frames, self._config)
            self._start_readers(ahead_bytes)
        self._reading = started

    def _decoded(self, process: FFmpegProcess) -> Iterator[FrameBlock]:
        if self._reading is None:
            self._begin(process, 0)
        if self._reading:
            yield from self._aligned_blocks(process)
        with process.awaited():
            self.summary = self._judge(process)
        process.close()

    def _start_readers(self, ahead_bytes: int) -> None:
        width, height = self._frames.width, self._frames.height
        shapes: dict[str, tuple[int, ...]] = {
            name: (*view.size_for(width, height), 3) for name, view in self._views.items()
        }
        shapes[_THUMBNAILS] = (THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH)
        largest = max(int(np.prod(shape)) for shape in shapes.values())
        frames = max(1, min(self._block_frames, MAX_BLOCK_BYTES // largest))
        for name, reader in self._readers.items():
            reader.start(name, shapes[name], frames, ahead_bytes)

    def _aligned_blocks(self, process: FFmpegProcess) -> Iterator[FrameBlock]:
        """Blocks as long as all outputs agree; the rest is for ``_judge`` to explain."""
        while True:
            with process.awaited():
                read = {name: reader.next_block() for name, reader in self._readers.items()}
                parts = {name: part for name, part in read.items() if part is not None}
                count = min((len(part) for part in parts.values()), default=0)
                pts_N = self._pts.wait_for(self._delivered, count)
            lengths = {len(part) for part in parts.values()} | {len(pts_N)}
            if len(parts) < len(read) or len(lengths) > 1:
                return
            hash_N = perceptual_hash(parts.pop(_THUMBNAILS))
            block = FrameBlock(self._delivered, pts_N, hash_N, MappingProxyType(parts))
            self._delivered += count
            yield block

    def _judge(self, process: FFmpegProcess) -> DecodeSummary:
        """The summary of a whole video; raises DecodeError for any other (see ``verdict``)."""
        status = process.wait()
        for thread in self._index_threads:
            thread.join()
        log = read_log(process.log_text())
        check_ended(self._path, process.violation, status, log)
        decoded, packets = self._frames.count, self._packets.count
        if decoded == 0:
            raise decode_error(self._path, no_frames_reason(log))
        check_whole(self._ffmpeg, self._path, self._config, log, self._packets)
        if decoded < packets and log.errors:
            raise decode_error(
                self._path,
                f"decoded {decoded} of {packets} frames; ffmpeg says: {log.summary}",
            )
        self._check_delivery(decoded)
        return self._summary(log)

    def _check_delivery(self, decoded: int) -> None:
        torn = [name for name, reader in self._readers.items() if reader.torn]
        if self._delivered != decoded or len(self._pts) != decoded or torn:
            raise decode_error(
                self._path,
                f"ffmpeg's outputs disagree: {decoded} frames decoded, "
                f"{self._delivered} delivered, {len(self._pts)} timestamps",
            )
        if self._pts.untimed:
            raise decode_error(self._path, f"{self._pts.untimed} frames have no timestamp")

    def _summary(self, log: FFmpegLog) -> DecodeSummary:
        table = self._frames
        seconds = table.span_seconds
        return DecodeSummary(
            frame_count=table.count,
            width=table.width,
            height=table.height,
            time_base=str(table.time_base),
            duration_seconds=seconds,
            fps=table.count / seconds if seconds > 0 else 0.0,
            decoder_errors=len(log.errors),
        )
