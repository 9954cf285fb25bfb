"""Decoding a video in one ffmpeg process: frames, timestamps, hashes, and what is missing."""

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
from distinit.pipeline.video.container import avi_ticks
from distinit.pipeline.video.hashing import THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, perceptual_hash
from distinit.pipeline.video.index import PacketTable, StreamTables, TimestampList
from distinit.pipeline.video.pipes import Pipe
from distinit.pipeline.video.probe import (
    broken_file,
    check_ended,
    check_file,
    check_size,
    damaged_error,
    decode_error,
    find_film,
    too_many_frames,
)
from distinit.pipeline.video.process import FFmpegProcess
from distinit.pipeline.video.verdict import (
    MOST_COUNTED,
    Damage,
    FFmpegLog,
    find_damage,
    no_frames_reason,
    read_log,
)
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
    """What a decoded video turned out to be. Size is after rotation, pixels.

    ``damage``: what is wrong with it, None if nothing is; see ``verdict.Damage``.
    """

    frame_count: int
    width: int
    height: int
    time_base: str
    duration_seconds: float
    fps: float
    decoder_errors: int = 0
    damage: Damage | None = None


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

    Exhaustion without an exception means: every frame that ffmpeg can decode was delivered, and
    the summary says whether frames are missing (``verdict``). Raises DecodeError otherwise,
    perhaps after some blocks; what was delivered before must then be discarded. Leaving the
    ``with`` block ends ffmpeg at any time.
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
        self.path = path
        self._ffmpeg = ffmpeg
        self._views = dict(views)
        self._config = config
        self._block_frames = block_frames
        self._film = 0
        self._packets = StreamTables()
        self._frames = PacketTable()
        self._pts = TimestampList()
        self._readers: dict[str, FrameReader] = {}
        self._index_threads: list[threading.Thread] = []
        self._delivered = 0
        self._reading: bool | None = None  # None: it was not looked yet; False: no frame came
        self._process: FFmpegProcess | None = None
        self._closed = False
        self._replacing = threading.Lock()  # of the process, while another thread may close
        self._blocks: Iterator[FrameBlock] | None = None

    def __enter__(self) -> Self:
        try:
            self._launch(film=0)
        except BaseException:
            self.close()
            raise
        self._blocks = self._decoded()
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
        return self._running().pid

    @property
    def time_base(self) -> str:
        """Seconds a unit of ``pts_N``, as "1/12800"; known from the first block on."""
        return str(self._frames.time_base)

    def close(self) -> None:
        """End ffmpeg, if it still runs, and the threads that read from it."""
        with self._replacing:
            self._closed = True
            if self._process is not None:
                self._process.close()

    def _launch(self, film: int) -> None:
        """Start ffmpeg, instead of one that decodes another stream."""
        with self._replacing:
            if self._closed:
                raise decode_error(self.path, "closed while it was being opened")
            if self._process is not None:
                self._process.close()
            self._film = film
            self._packets, self._frames = StreamTables(), PacketTable()
            self._pts = TimestampList()
            self._process = FFmpegProcess(self._config)
            self._start(self._process)

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
        process.start(
            decode_command(self._ffmpeg, self.path, self._views, self._config, outputs, self._film)
        )
        indexes = ((self._packets, packets), (self._frames, frames), (self._pts, timestamps))
        self._index_threads = [
            process.run_thread(self._index, "ffmpeg-index", process, target, pipe)
            for target, pipe in indexes
        ]

    def _index(
        self,
        process: FFmpegProcess,
        target: StreamTables | PacketTable | TimestampList,
        pipe: Pipe,
    ) -> None:
        if not target.feed(pipe.lines(), self._config.max_frames):
            process.kill(too_many_frames(self._config))

    def read_ahead(self) -> None:
        """Wait for the first frame, then read on in the background: 32 MiB of each view.

        Otherwise ffmpeg stands until the first block is asked for, and then a block ahead. Of
        several open videos only one would decode. Raises DecodeError for frames too large.
        """
        if self._blocks is None:
            raise RuntimeError("a VideoStream is used as: with open_video(...) as stream")
        self._begin(_AHEAD_BYTES)

    def _begin(self, ahead_bytes: int) -> None:
        with self._running().awaited():
            several = self._packets.wait_for_headers() > 1
        if several and (film := find_film(self.path, self._config)) != self._film:
            self._launch(film)
        with self._running().awaited():
            started = self._frames.wait_for_header()
        if started:
            check_size(self.path, self._frames, self._config)
            self._start_readers(ahead_bytes)
        self._reading = started

    def _decoded(self) -> Iterator[FrameBlock]:
        if self._reading is None:
            self._begin(0)
        process = self._running()
        if self._reading:
            yield from self._aligned_blocks(process)
        with process.awaited():
            self.summary = self._judge(process)
        process.close()

    def _running(self) -> FFmpegProcess:
        if self._process is None:
            raise RuntimeError("a VideoStream is used as: with open_video(...) as stream")
        return self._process

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
        """The summary of a video that is whole or kept; raises DecodeError for any other."""
        status = process.wait()
        for thread in self._index_threads:
            thread.join()
        log = read_log(process.log_text())
        check_ended(self.path, process.violation, status, log)
        decoded = self._frames.count
        if decoded == 0:
            raise decode_error(self.path, no_frames_reason(log))
        self._check_delivery(decoded)
        damage = self._find_damage(log, decoded)
        if damage is not None and not damage.concealed and self._config.damaged == "fail":
            raise damaged_error(self.path, damage.text)
        return self._summary(log, damage)

    def _find_damage(self, log: FFmpegLog, decoded: int) -> Damage | None:
        packets = self._packets.tables.get(self._film, PacketTable())
        broken = broken_file(self._ffmpeg, self.path, self._config, log, packets)
        # The header of an AVI is read for its first video stream.
        ticks = avi_ticks(self.path) if self._film == 0 else None
        return find_damage(log, decoded, packets, broken=broken, header_ticks=ticks)

    def _check_delivery(self, decoded: int) -> None:
        torn = [name for name, reader in self._readers.items() if reader.torn]
        if self._delivered != decoded or len(self._pts) != decoded or torn:
            raise decode_error(
                self.path,
                f"ffmpeg's outputs disagree: {decoded} frames decoded, "
                f"{self._delivered} delivered, {len(self._pts)} timestamps",
            )
        if self._pts.untimed:
            raise decode_error(self.path, f"{self._pts.untimed} frames have no timestamp")

    def _summary(self, log: FFmpegLog, damage: Damage | None) -> DecodeSummary:
        table = self._frames
        seconds = table.span_seconds
        return DecodeSummary(
            frame_count=table.count,
            width=table.width,
            height=table.height,
            time_base=str(table.time_base),
            duration_seconds=seconds,
            fps=table.count / seconds if seconds > 0 else 0.0,
            decoder_errors=min(len(log.errors), MOST_COUNTED),
            damage=damage,
        )
