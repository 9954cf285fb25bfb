"""Decodes a video: frames, timestamps, hashes, and a summary that says what is missing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Self

from distinit.pipeline.video.binary import find_ffmpeg, supports_cuda
from distinit.pipeline.video.blocks import FrameBlock
from distinit.pipeline.video.checks import (
    check_ended,
    check_file,
    check_size,
    damaged_error,
    decode_error,
    read_errors,
)
from distinit.pipeline.video.container import avi_ticks
from distinit.pipeline.video.decode_process import (
    THUMBNAILS,
    DecodeProcess,
    DecodeRequest,
    view_output,
)
from distinit.pipeline.video.hashing import perceptual_hash
from distinit.pipeline.video.index import PacketTable
from distinit.pipeline.video.probe import broken_file, find_main_stream
from distinit.pipeline.video.verdict import (
    MAX_COUNTED_ERRORS,
    Damage,
    FFmpegLog,
    find_damage,
    no_frames_reason,
    read_log,
)
from distinit.pipeline.video.views import View
from distinit.schemas.video import DecodeConfig

__all__ = [
    "DecodeSummary",
    "FrameBlock",
    "VideoStream",
    "damage_of",
    "open_video",
    "summary_of",
    "usable_decode",
]

_AHEAD_BYTES = 32 << 20

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DecodeSummary:
    """What was found by decoding a whole video. Width and height in pixels, after rotation.

    ``damage``: what is wrong with the video, or None; see ``verdict.Damage``.
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
    """Start to decode ``path``. The caller must close the stream, best with a ``with`` block.

    A block has ``block_frames`` frames: fewer at the end, and where a block of one view would
    exceed 16 MiB.

    Raises:
        DecodeError: The file cannot be opened.
        FFmpegNotFoundError: There is no usable ffmpeg.
        OSError: ffmpeg cannot be executed.
        ValueError: ``block_frames`` is less than 1.
    """
    if block_frames < 1:
        raise ValueError(f"block_frames must be at least 1, not {block_frames}")
    check_file(path)
    config, warning = usable_decode(config)
    if warning:
        _warn_once(warning)
    return VideoStream(DecodeRequest(find_ffmpeg(), path, dict(views), config, block_frames))


def usable_decode(config: DecodeConfig) -> tuple[DecodeConfig, str]:
    """``config`` with a decoder that works on this machine, and a warning if it differs, else "".

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
def _warn_once(message: str) -> None:
    """Log a warning, but not again for every video."""
    _logger.warning(message)


class VideoStream:
    """Iterator over the FrameBlocks of one video that ffmpeg is decoding.

    If iteration ends without an exception, every frame that ffmpeg can decode was delivered, and
    ``summary`` says whether frames are missing (``verdict``); until then ``summary`` is None.
    Otherwise iteration raises DecodeError, perhaps after some blocks, which must be discarded.
    ``close``, or leaving the ``with`` block, ends ffmpeg at any time; another thread may call it.

    Raises OSError if ffmpeg cannot be executed.
    """

    def __init__(self, request: DecodeRequest) -> None:
        self.summary: DecodeSummary | None = None
        self.path = request.path
        self._request = request
        self._delivered = 0  # frames
        self._begun = False
        self._closed = False
        self._lock = threading.Lock()  # of _closed, and of the process and its threads
        self._blocks = self._read_blocks()
        self._decoding = DecodeProcess(request, stream_number=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FrameBlock:
        return next(self._blocks)

    @property
    def pid(self) -> int:
        """Process id of the ffmpeg that decodes."""
        return self._decoding.process.pid

    @property
    def time_base(self) -> str:
        """Seconds per unit of ``pts_N``, as "1/12800"; known from the first block on."""
        return str(self._decoding.frame_table.time_base)

    def close(self) -> None:
        """End ffmpeg, if it is still running, and the threads that read from it. Idempotent."""
        with self._lock:
            self._closed = True
            self._decoding.process.close()

    def read_ahead(self) -> None:
        """Wait for the first frame, then decode in the background: 32 MiB of each view.

        Without it, ffmpeg blocks until the first block is requested, and then decodes one block
        ahead; of several open videos only one would decode. Raises DecodeError for frames that
        are too large.
        """
        if not self._begun:
            self._begin(_AHEAD_BYTES)

    def _begin(self, ahead_bytes: int) -> None:
        """Find the main video stream, wait for its first frame, and start to read frames."""
        decoding = self._decoding
        with decoding.process.awaited():
            several = decoding.packets.wait_for_headers() > 1
        if several:
            decoding = self._switch_to(find_main_stream(self.path, self._request.config))
        with decoding.process.awaited():
            has_frames = decoding.frame_table.wait_for_header()
        if has_frames:
            check_size(self.path, decoding.frame_table, self._request.config)
            with self._lock:
                self._check_open()
                decoding.start_readers(ahead_bytes)
        self._begun = True

    def _switch_to(self, stream_number: int) -> DecodeProcess:
        """Decode another video stream of the file, if it is another."""
        with self._lock:
            self._check_open()
            if stream_number != self._decoding.stream_number:
                self._decoding.process.close()
                self._decoding = DecodeProcess(self._request, stream_number)
            return self._decoding

    def _check_open(self) -> None:
        if self._closed:
            raise decode_error(self.path, "closed while it was being opened")

    def _read_blocks(self) -> Iterator[FrameBlock]:
        if not self._begun:
            self._begin(0)
        decoding = self._decoding
        if decoding.readers:
            yield from self._aligned_blocks(decoding)
        with decoding.process.awaited():
            self.summary = self._judge(decoding)
        self.close()

    def _aligned_blocks(self, decoding: DecodeProcess) -> Iterator[FrameBlock]:
        """Blocks while all outputs agree on their length; ``_judge`` explains the rest."""
        while True:
            with decoding.process.awaited():
                read = {name: reader.next_block() for name, reader in decoding.readers.items()}
                parts = {name: part for name, part in read.items() if part is not None}
                frame_count = min((len(part) for part in parts.values()), default=0)
                pts_N = decoding.timestamps.wait_for(self._delivered, frame_count)
            lengths = {len(part) for part in parts.values()} | {len(pts_N)}
            if len(parts) < len(read) or len(lengths) > 1:
                return
            hash_N = perceptual_hash(parts[THUMBNAILS])
            views = {name: parts[view_output(name)] for name in self._request.views}
            block = FrameBlock(self._delivered, pts_N, hash_N, MappingProxyType(views))
            self._delivered += frame_count
            yield block

    def _judge(self, decoding: DecodeProcess) -> DecodeSummary:
        """The summary of a video that is whole or kept; raises DecodeError for any other."""
        status = decoding.wait()
        log = read_log(decoding.process.log_text())
        check_ended(self.path, decoding.process.violation, status, log)
        decoded = decoding.frame_table.count
        if decoded == 0:
            raise decode_error(self.path, no_frames_reason(log))
        self._check_delivery(decoding, decoded)
        number = decoding.stream_number
        packets = decoding.packets.tables.get(number, PacketTable())
        damage = damage_of(self.path, self._request.config, log, decoded, packets, number)
        if damage is not None and not damage.concealed and self._request.config.damaged == "fail":
            raise damaged_error(self.path, damage.text)
        return summary_of(decoding.frame_table, log, damage)

    def _check_delivery(self, decoding: DecodeProcess, decoded: int) -> None:
        timestamps = decoding.timestamps
        torn = any(reader.torn for reader in decoding.readers.values())
        if self._delivered != decoded or len(timestamps) != decoded or torn:
            raise decode_error(
                self.path,
                f"ffmpeg's outputs disagree: {decoded} frames decoded, "
                f"{self._delivered} delivered, {len(timestamps)} timestamps",
            )
        if timestamps.untimed:
            raise decode_error(self.path, f"{timestamps.untimed} frames have no timestamp")


def damage_of(
    path: Path,
    config: DecodeConfig,
    log: FFmpegLog,
    decoded: int,
    packets: PacketTable,
    number: int,
) -> Damage | None:
    """What is wrong with a video of which ``decoded`` frames of stream ``number`` were decoded."""
    broken = broken_file(find_ffmpeg(), path, config, log, packets)
    # The header of an AVI is read for its first video stream.
    with read_errors(path):
        ticks = avi_ticks(path) if number == 0 else None
    return find_damage(log, decoded, packets, broken=broken, header_ticks=ticks)


def summary_of(frame_table: PacketTable, log: FFmpegLog, damage: Damage | None) -> DecodeSummary:
    """The summary of a video from the list of its decoded frames."""
    seconds = frame_table.span_seconds
    return DecodeSummary(
        frame_count=frame_table.count,
        width=frame_table.width,
        height=frame_table.height,
        time_base=str(frame_table.time_base),
        duration_seconds=seconds,
        fps=frame_table.count / seconds if seconds > 0 else 0.0,
        decoder_errors=min(len(log.errors), MAX_COUNTED_ERRORS),
        damage=damage,
    )
