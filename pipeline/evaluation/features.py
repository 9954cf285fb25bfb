"""Last-layer features of stored videos: the mean over the clips of an evaluation protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.evaluation.clip_batches import (
    ProtocolBatch,
    clip_batches,
    protocol_clips,
    student_input,
)
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import Progress
from distinit.pipeline.students.heads import Student
from distinit.schemas.errors import ComputeError
from distinit.schemas.training import ClipConfig

__all__ = ["FeatureReader"]


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
        clips = (protocol_clips(self.store, name, self.protocol, self.clip) for name in video_ids)
        return np.array([sum(clip.weight for clip in video) for video in clips], np.int64)

    def features(self, video_ids: Sequence[str], progress: Progress) -> Tensor:
        """float32 [N, D] on the CPU: what the heads read, averaged over the clips of each video.

        ``progress`` advances by one per video. Raises ConfigError if the crop is larger than the
        frames, FrameStoreError if frames are damaged, ComputeError if a feature is not finite.
        """
        sum_ND = torch.zeros(len(video_ids), self.student.feature_dim, dtype=torch.float64)
        batches = clip_batches(
            self.store,
            video_ids,
            self.protocol,
            self.clip,
            batch_size=self.batch_size,
            loader_threads=self.loader_threads,
        )
        done = 0
        for batch in batches:
            video_B = torch.tensor([clip.video for clip in batch.clips])
            weight_B = torch.tensor([clip.weight for clip in batch.clips], dtype=torch.float64)
            sum_ND.index_add_(0, video_B, self._forward(batch) * weight_B[:, None])
            progress.advance(batch.clips[-1].video - done)
            done = batch.clips[-1].video
        progress.advance(len(video_ids) - done)
        mean_ND = sum_ND / torch.from_numpy(self.clip_counts(video_ids))[:, None]
        return mean_ND.float()

    @torch.inference_mode()
    def _forward(self, batch: ProtocolBatch) -> Tensor:
        """float64 [B, D] on the CPU."""
        clip_BCTHW = student_input(batch.pixels_BTCHW, self.clip, self.device)
        feature_BD = self.student.backbone(clip_BCTHW)
        if not bool(torch.isfinite(feature_BD).all()):
            raise ComputeError(
                "a feature of the student is not a finite number",
                remedy="the training has diverged: lower the learning rate and train again",
            )
        return feature_BD.double().cpu()
