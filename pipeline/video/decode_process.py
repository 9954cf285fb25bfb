"""One ffmpeg process that decodes one video stream, and everything it delivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distinit.pipeline.video.binary import FFmpeg
from distinit.pipeline.video.blocks import FrameReader
from distinit.pipeline.video.checks import too_many_frames
from distinit.pipeline.video.command import DecodeOutputs, decode_command
from distinit.pipeline.video.hashing import THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH
from distinit.pipeline.video.index import PacketTable, StreamTables, TimestampList
from distinit.pipeline.video.pipes import Pipe
from distinit.pipeline.video.process import FFmpegProcess
from distinit.pipeline.video.views import View
from distinit.schemas.video import DecodeConfig

__all__ = [
    "MAX_BLOCK_BYTES",
    "THUMBNAILS",
    "DecodeProcess",
    "DecodeRequest",
    "frame_shapes",
    "frames_per_block",
    "view_output",
]

# A block of 32 8K frames would take 3 GiB. Several blocks of each view exist at a time, for each of
# the videos that a worker decodes at once.
MAX_BLOCK_BYTES = 16 << 20
THUMBNAILS = "thumbnails"
"""Name of the output with the thumbnails that are hashed."""


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """What to decode, and how: the file, the views of each frame, limits, frames per block."""

    ffmpeg: FFmpeg
    path: Path
    views: Mapping[str, View]
    config: DecodeConfig
    block_frames: int


class DecodeProcess:
    """A running ffmpeg that decodes video stream ``stream_number`` of the requested file.

    Threads collect the packets of all video streams (``packets``), and a list (``frame_table``) and
    the timestamps (``timestamps``) of the decoded frames. ``readers`` maps output name ->
    FrameReader; it is empty until ``start_readers``: the size of a frame is known only then.

    Raises OSError if ffmpeg cannot be executed. A constructor that raises leaves no process,
    thread or file descriptor behind.
    """

    def __init__(self, request: DecodeRequest, stream_number: int) -> None:
        self.stream_number = stream_number
        self.packets = StreamTables()
        self.frame_table = PacketTable()
        self.timestamps = TimestampList()
        self.readers: dict[str, FrameReader] = {}
        self._request = request
        views = [view_output(name) for name in request.views]
        self.process = FFmpegProcess(
            request.config,
            ["packets", "frames", "timestamps", THUMBNAILS, *views],
            self._command,
        )
        pipes = self.process.pipes
        try:
            self._index_threads = [
                self.process.run_thread(self._index, "ffmpeg-index", table, pipes[name])
                for name, table in (
                    ("packets", self.packets),
                    ("frames", self.frame_table),
                    ("timestamps", self.timestamps),
                )
            ]
        except BaseException:
            self.process.close()
            raise

    def _command(self, urls: Mapping[str, str]) -> list[str]:
        request = self._request
        outputs = DecodeOutputs(
            packets=urls["packets"],
            frames=urls["frames"],
            timestamps=urls["timestamps"],
            thumbnails=urls[THUMBNAILS],
            views={name: urls[view_output(name)] for name in request.views},
        )
        return decode_command(
            request.ffmpeg, request.path, request.views, request.config, outputs, self.stream_number
        )

    def _index(self, table: StreamTables | PacketTable | TimestampList, pipe: Pipe) -> None:
        config = self._request.config
        if not table.feed(pipe.lines(), config.max_frames):
            self.process.kill(too_many_frames(config))

    def start_readers(self, ahead_bytes: int) -> None:
        """Start to read thumbnails and views, up to ``ahead_bytes`` of each in advance.

        The size of the frames must be known: call ``frame_table.wait_for_header()`` first.
        """
        shapes = frame_shapes(self._request.views, self.frame_table)
        block_frames = frames_per_block(shapes, self._request.block_frames)
        for name, shape in shapes.items():
            pipe = self.process.pipes[name]
            self.readers[name] = FrameReader(
                self.process, pipe, name, shape, block_frames, ahead_bytes
            )

    def wait(self) -> int:
        """Wait until ffmpeg ends and its lists of packets and timestamps are complete.

        Returns its exit status, negative for a signal.
        """
        status = self.process.wait()
        for thread in self._index_threads:
            thread.join()
        return status


def frame_shapes(views: Mapping[str, View], frame_table: PacketTable) -> dict[str, tuple[int, ...]]:
    """Output -> shape of its frames, for the thumbnails and the views."""
    size = frame_table.width, frame_table.height
    shapes: dict[str, tuple[int, ...]] = {THUMBNAILS: (THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH)}
    for name, view in views.items():
        shapes[view_output(name)] = (*view.size_for(*size), 3)
    return shapes


def frames_per_block(shapes: Mapping[str, tuple[int, ...]], most: int) -> int:
    """Frames of a block: at most ``most``, and no view of more than 16 MiB."""
    largest = max(int(np.prod(shape)) for shape in shapes.values())
    return max(1, min(most, MAX_BLOCK_BYTES // largest))


def view_output(name: str) -> str:
    """Name of the output that holds the frames of a view."""
    return f"view {name}"
