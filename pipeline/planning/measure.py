"""Measures how fast this machine decodes a sample of videos and runs the teachers."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from distinit.pipeline.corpus.source import VideoSource
from distinit.pipeline.extraction.probing import probe_rows
from distinit.pipeline.frames.jpeg import encode_jpeg
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.video.decode import VideoStream, open_video
from distinit.pipeline.video.views import View
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["VideoSample", "mean_jpeg_bytes", "measure_videos", "rows_per_second"]


@dataclass(slots=True)
class VideoSample:
    """Measurements of one video; the counts of an unreadable one are 0.

    ``frames_NHWC``: view -> the first decoded frames, uint8.
    """

    frame_count: int = 0
    row_count: int = 0
    decoded_frame_count: int = 0
    decoding_seconds: float = 0.0
    frames_NHWC: Mapping[str, np.ndarray] = field(default_factory=dict)

    def clear(self) -> None:
        """Reset all measurements, for a video that turns out to be unreadable."""
        self.frame_count = self.row_count = self.decoded_frame_count = 0
        self.decoding_seconds, self.frames_NHWC = 0.0, {}


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
    """Probe all ``paths``, then decode for ``seconds``, as many videos at a time as a worker.

    A video that is unreadable, or cannot be fetched, has no frames. At least one block is decoded,
    however long it takes, if any video is readable.
    """
    with ThreadPoolExecutor(decode.videos_at_once(os.cpu_count())) as threads:
        samples = list(threads.map(lambda path: _probed(source, path, decode, sampling), paths))
        deadline = time.monotonic() + seconds

        def decode_one(path: str, sample: VideoSample) -> None:
            late = time.monotonic() >= deadline and any(
                other.decoded_frame_count for other in samples
            )
            if sample.frame_count == 0 or late:
                return
            try:
                with (
                    source.open(path, None) as file,
                    open_video(file, views, decode, block_frames=block_frames) as stream,
                ):
                    _decode_until(deadline, stream, sample)
            except DecodeError:
                sample.clear()

        list(threads.map(decode_one, paths, samples))
    return samples


def _probed(
    source: VideoSource, path: str, decode: DecodeConfig, sampling: SamplingConfig
) -> VideoSample:
    try:
        with source.open(path, None) as file:
            probe, rows = probe_rows(file, decode, sampling)
    except DecodeError:
        return VideoSample()
    return VideoSample(probe.frame_count, rows)


def _decode_until(deadline: float, stream: VideoStream, sample: VideoSample) -> None:
    start = time.monotonic()
    for block in stream:
        sample.decoded_frame_count += len(block.pts_N)
        sample.frames_NHWC = sample.frames_NHWC or block.views
        sample.decoding_seconds = time.monotonic() - start
        if time.monotonic() >= deadline:
            return


def rows_per_second(teacher: Teacher, frames_NHWC: np.ndarray, seconds: float) -> float:
    """Frames per second of the forward pass of ``teacher``, after one batch to warm up."""
    teacher.forward(frames_NHWC)
    start, batches = time.monotonic(), 0
    while (spent := time.monotonic() - start) < seconds or batches == 0:
        teacher.forward(frames_NHWC)
        batches += 1
    return batches * len(frames_NHWC) / spent


def mean_jpeg_bytes(frames_NHWC: np.ndarray, quality: int) -> float:
    """Mean size of the frames as JPEG, in bytes."""
    return statistics.fmean(len(encode_jpeg(frame, quality)) for frame in frames_NHWC)
