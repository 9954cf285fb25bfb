"""Last-layer features of stored videos: the mean over the clips of an evaluation protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import batched

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.evaluation.clips import (
    ClipProtocol,
    centre_crop,
    clip_indices,
    parse_protocol,
    protocol_clip_starts,
)
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import Progress
from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.clips import to_clip
from distinit.pipeline.training.loader import prefetch
from distinit.schemas.errors import ComputeError
from distinit.schemas.training import ClipConfig

__all__ = ["FeatureReader"]


@dataclass(frozen=True, slots=True)
class _Clip:
    video: int
    """Index of the video in the list of videos."""
    video_id: str
    start: int
    frame_count: int
    """Frames of the video."""
    weight: int
    """How often the protocol counts this clip."""


@dataclass(frozen=True, slots=True)
class FeatureReader:
    """Computes the features of videos in a frame store with one network."""

    student: Student
    """In evaluation mode, on ``device``."""
    store: FrameStore
    clip: ClipConfig
    protocol: str
    batch_size: int
    device: torch.device
    loader_threads: int = 0

    def clip_counts(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        """Number of clips [N] that the protocol has in each video, repeated ones included."""
        protocol = parse_protocol(self.protocol)
        return np.array([len(self._starts(protocol, video_id)) for video_id in video_ids], np.int64)

    def features(self, video_ids: Sequence[str], progress: Progress) -> Tensor:
        """float32 [N, D] on the CPU: what the heads read, averaged over the clips of each video.

        ``progress`` advances by one per video. Raises ConfigError if the crop is larger than the
        frames, FrameStoreError if frames are damaged, ComputeError if a feature is not finite.
        """
        clips = list(self._clips(video_ids))
        sum_ND = torch.zeros(len(video_ids), self.student.feature_dim, dtype=torch.float64)
        batches = prefetch(
            lambda batch: (batch, self._load(batch)),
            batched(clips, self.batch_size),
            self.loader_threads,
        )
        done = 0
        for (batch, pixels_BTCHW), _ in batches:
            feature_BD = self._forward(pixels_BTCHW)
            video_B = torch.tensor([clip.video for clip in batch])
            weight_B = torch.tensor([clip.weight for clip in batch], dtype=torch.float64)
            sum_ND.index_add_(0, video_B, feature_BD * weight_B[:, None])
            progress.advance(batch[-1].video - done)
            done = batch[-1].video
        progress.advance(len(video_ids) - done)
        mean_ND = sum_ND / torch.from_numpy(self.clip_counts(video_ids))[:, None]
        return mean_ND.float()

    def _starts(self, protocol: ClipProtocol, video_id: str) -> NDArray[np.int64]:
        frame_count = self.store.videos[video_id].frame_count
        return protocol_clip_starts(protocol, frame_count, self.clip.frames)

    def _clips(self, video_ids: Sequence[str]) -> Iterator[_Clip]:
        """Every distinct clip once, with the number of times that the protocol counts it."""
        protocol = parse_protocol(self.protocol)
        for video, video_id in enumerate(video_ids):
            frame_count = self.store.videos[video_id].frame_count
            starts, weights = np.unique(self._starts(protocol, video_id), return_counts=True)
            for start, weight in zip(starts.tolist(), weights.tolist(), strict=True):
                yield _Clip(video, video_id, start, frame_count, weight)

    def _load(self, clips: Sequence[_Clip]) -> Tensor:
        """uint8 [B, T, C, crop, crop]; C is 3 for RGB, 2 for flow."""
        frames = self.clip.frames
        return torch.stack(
            [
                centre_crop(
                    self.store.clip(
                        clip.video_id, clip_indices(clip.start, clip.frame_count, frames).tolist()
                    ),
                    self.clip.crop,
                )
                for clip in clips
            ]
        )

    @torch.inference_mode()
    def _forward(self, pixels_BTCHW: Tensor) -> Tensor:
        """float64 [B, D] on the CPU."""
        pixels_BTCHW = pixels_BTCHW.to(self.device)
        no_flip_B = torch.zeros(len(pixels_BTCHW), dtype=torch.bool, device=self.device)
        feature_BD = self.student.backbone(to_clip(pixels_BTCHW, no_flip_B, self.clip))
        if not bool(torch.isfinite(feature_BD).all()):
            raise ComputeError(
                "a feature of the student is not a finite number",
                remedy="the training has diverged: lower the learning rate and train again",
            )
        return feature_BD.double().cpu()
