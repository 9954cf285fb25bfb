"""Cuts the clips of a protocol out of stored videos, in batches; each frame is decoded once."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import batched

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.evaluation.clips import (
    clip_indices,
    parse_protocol,
    protocol_clip_starts,
    protocol_crops,
)
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.training.clips import to_clip
from distinit.pipeline.training.loader import prefetch
from distinit.schemas.training import ClipConfig

__all__ = ["ProtocolBatch", "ProtocolClip", "clip_batches", "protocol_clips", "student_input"]

_FRAMES_AT_ONCE = 32
"""Frames that a loader thread decodes at once, unless a video has fewer."""


@dataclass(frozen=True, slots=True)
class ProtocolClip:
    """A clip that a protocol counts ``weight`` times."""

    video: int
    """Index of its video in the sequence of videos."""
    start: int
    """Its first frame."""
    top: int
    """First row of its crop, pixels."""
    left: int
    """First column of its crop, pixels."""
    weight: int


@dataclass(frozen=True, slots=True)
class ProtocolBatch:
    """Clips of one or more videos and their pixels."""

    clips: tuple[ProtocolClip, ...]
    pixels_BTCHW: Tensor
    """uint8 [B, T, channels, crop, crop]; channels are RGB, or x and y of flow."""


@dataclass(frozen=True, slots=True)
class _Frames:
    """Consecutive needed frames of a video, to be decoded at once."""

    video: int
    video_id: str
    frame_count: int
    """Frames of the video."""
    frames_M: NDArray[np.int64]
    """Ascending indices of the frames to decode."""
    clips: Sequence[ProtocolClip]
    """The clips whose last frame is among these."""
    keep_from: int
    """First frame that clips after these need."""


def protocol_clips(
    store: FrameStore, video_id: str, protocol: str, clip: ClipConfig, *, video: int = 0
) -> list[ProtocolClip]:
    """The distinct clips of one video, in order of their starts; ``video`` is copied into them.

    Raises ConfigError for an unknown protocol, or if the crop is larger than the frames.
    """
    parsed, stored = parse_protocol(protocol), store.videos[video_id]
    starts = protocol_clip_starts(parsed, stored.frame_count, clip.frames)
    crops = protocol_crops(parsed, stored.height, stored.width, clip.crop)
    every_N3 = np.array([(start, *crop) for start in starts.tolist() for crop in crops])
    distinct_M3, weight_M = np.unique(every_N3, axis=0, return_counts=True)
    return [
        ProtocolClip(video, start, top, left, weight)
        for (start, top, left), weight in zip(distinct_M3.tolist(), weight_M.tolist(), strict=True)
    ]


def clip_batches(
    store: FrameStore,
    video_ids: Sequence[str],
    protocol: str,
    clip: ClipConfig,
    *,
    batch_size: int,
    loader_threads: int = 0,
) -> Generator[ProtocolBatch]:
    """Yield every distinct clip of the videos once, in order of the videos and of their starts.

    A batch has ``batch_size`` clips (the last may have fewer) and may span videos. Each frame is
    decoded once, by the loader threads if there are any, and kept until no later clip of its video
    needs it: memory does not grow with the length of a video.

    Raises ConfigError as ``protocol_clips``, FrameStoreError for frames that cannot be read.
    """

    def load(request: _Frames) -> tuple[_Frames, Tensor]:
        return request, store.clip(request.video_id, request.frames_M.tolist())

    requests = _requests(store, video_ids, protocol, clip)
    with closing(prefetch(load, requests, loader_threads)) as loaded:
        cut = _cut_clips((item for item, _ in loaded), clip)
        for batch in batched(cut, batch_size):
            pixels = torch.stack([frame for _, frames in batch for frame in frames])
            pixels_BTHWC = pixels.view(len(batch), clip.frames, *pixels.shape[1:])
            clips = tuple(protocol_clip for protocol_clip, _ in batch)
            yield ProtocolBatch(clips, pixels_BTHWC.permute(0, 1, 4, 2, 3))


def student_input(pixels_BTCHW: Tensor, clip: ClipConfig, device: torch.device) -> Tensor:
    """Pixels of a ProtocolBatch -> normalised [B, C, T, H, W] on ``device``, not flipped."""
    no_flip_B = torch.zeros(len(pixels_BTCHW), dtype=torch.bool, device=device)
    return to_clip(pixels_BTCHW.to(device), no_flip_B, clip)


def _requests(
    store: FrameStore, video_ids: Sequence[str], protocol: str, clip: ClipConfig
) -> Iterator[_Frames]:
    for video, video_id in enumerate(video_ids):
        clips = protocol_clips(store, video_id, protocol, clip, video=video)
        frame_count = store.videos[video_id].frame_count
        frames_N = _needed_frames(clips, frame_count, clip.frames)
        last_clip_frame_N = np.array(
            [min(item.start + clip.frames, frame_count) - 1 for item in clips]
        )
        done = 0
        for first in range(0, len(frames_N), _FRAMES_AT_ONCE):
            frames_M = frames_N[first : first + _FRAMES_AT_ONCE]
            ready = int(np.searchsorted(last_clip_frame_N, frames_M[-1], side="right"))
            keep_from = clips[ready].start if ready < len(clips) else frame_count
            yield _Frames(video, video_id, frame_count, frames_M, clips[done:ready], keep_from)
            done = ready


def _needed_frames(
    clips: Sequence[ProtocolClip], frame_count: int, frames: int
) -> NDArray[np.int64]:
    """The distinct frames of the clips, ascending."""
    change_N = np.zeros(frame_count + 1, np.int64)  # clips that begin minus clips that have ended
    for clip in clips:
        change_N[clip.start] += 1
        change_N[min(clip.start + frames, frame_count)] -= 1
    return np.flatnonzero(np.cumsum(change_N[:-1]))


def _cut_clips(
    loaded: Iterator[tuple[_Frames, Tensor]], clip: ClipConfig
) -> Iterator[tuple[ProtocolClip, list[Tensor]]]:
    """Each clip with its frames, T views [crop, crop, C] in the decoder's memory order."""
    window: dict[int, Tensor] = {}  # of the current video
    for request, frames_MCHW in loaded:
        window |= zip(request.frames_M.tolist(), frames_MCHW.permute(0, 2, 3, 1), strict=True)
        for item in request.clips:
            indices = clip_indices(item.start, request.frame_count, clip.frames).tolist()
            rows = slice(item.top, item.top + clip.crop)
            columns = slice(item.left, item.left + clip.crop)
            yield item, [window[index][rows, columns] for index in indices]
        window = {index: frame for index, frame in window.items() if index >= request.keep_from}
