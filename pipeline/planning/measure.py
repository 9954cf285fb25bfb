"""How fast this machine decodes these videos and runs these teachers, measured for seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from distinit.pipeline.corpus.source import VideoSource
from distinit.pipeline.extraction.probing import announced_by
from distinit.pipeline.frames.jpeg import encode_jpeg
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.video.decode import VideoStream, open_video
from distinit.pipeline.video.views import View
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["VideoSample", "mean_jpeg_bytes", "measure_videos", "rows_per_second"]


@dataclass(slots=True)
class VideoSample:
    """What looking at one video told; no frames and rows if it is unreadable.

    ``pictures``: the first frames of each view, uint8 NHWC.
    """

    frames: int = 0
    rows: int = 0
    decoded_frames: int = 0
    decoding_seconds: float = 0.0
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)

    def forget(self) -> None:
        """The video turned out to be unreadable."""
        self.frames = self.rows = self.decoded_frames = 0
        self.decoding_seconds, self.pictures = 0.0, {}


def measure_videos(
    source: VideoSource,
    paths: Sequence[str],
    views: Mapping[str, View],
    decode: DecodeConfig,
    sampling: SamplingConfig,
    *,
    block_frames: int,
    seconds: float,
) -> list[VideoSample]:
    """Probe every video of ``paths``, then decode for ``seconds``, as many at a time as a worker.

    A video that is unreadable, or cannot be fetched, has no frames. Some frames are decoded,
    however long it takes, if any video has them.
    """
    with ThreadPoolExecutor(decode.parallel_videos) as threads:
        looks = list(threads.map(lambda path: _probed(source, path, decode, sampling), paths))
        deadline = time.monotonic() + seconds

        def decode_one(path: str, look: VideoSample) -> None:
            late = time.monotonic() >= deadline and any(other.decoded_frames for other in looks)
            if look.frames == 0 or late:
                return
            try:
                with (
                    source.open(path, None) as file,
                    open_video(file, views, decode, block_frames=block_frames) as stream,
                ):
                    _decode_until(deadline, stream, look)
            except DecodeError:
                look.forget()

        list(threads.map(decode_one, paths, looks))
    return looks


def _probed(
    source: VideoSource, path: str, decode: DecodeConfig, sampling: SamplingConfig
) -> VideoSample:
    try:
        with source.open(path, None) as file:
            announced = announced_by(file, decode, sampling)
    except DecodeError:
        return VideoSample()
    return VideoSample() if announced is None else VideoSample(announced.frames, announced.rows)


def _decode_until(deadline: float, stream: VideoStream, look: VideoSample) -> None:
    began = time.monotonic()
    for block in stream:
        look.decoded_frames += len(block.pts_N)
        look.pictures = look.pictures or block.views
        look.decoding_seconds = time.monotonic() - began
        if time.monotonic() >= deadline:
            return


def rows_per_second(teacher: Teacher, frames_NHWC: np.ndarray, seconds: float) -> float:
    """Frames that ``teacher`` answers a second, after one batch to warm up."""
    teacher.forward(frames_NHWC)
    began, batches = time.monotonic(), 0
    while (spent := time.monotonic() - began) < seconds or batches == 0:
        teacher.forward(frames_NHWC)
        batches += 1
    return batches * len(frames_NHWC) / spent


def mean_jpeg_bytes(frames_NHWC: np.ndarray, quality: int) -> float:
    """Mean size of stored frames."""
    return statistics.fmean(len(encode_jpeg(frame, quality)) for frame in frames_NHWC)
