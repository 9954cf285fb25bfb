"""Scores a finetuned student on the test videos of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import batched

import numpy as np
import torch
from torch import Tensor

from distinit.pipeline.datasets.scored import ScoredVideo
from distinit.pipeline.evaluation.clips import (
    ClipProtocol,
    centre_crop,
    clip_indices,
    parse_protocol,
    protocol_clip_starts,
)
from distinit.pipeline.evaluation.metrics import ScoreBoard
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import Progress
from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.clips import to_clip
from distinit.pipeline.training.loader import prefetch
from distinit.schemas.errors import DatasetError
from distinit.schemas.run import EvaluationResult
from distinit.schemas.training import ClipConfig

__all__ = ["LABELS_HEAD", "score_student"]

LABELS_HEAD = "labels"
"""Name of the only head of a finetuned student."""


@dataclass(frozen=True, slots=True)
class _Clip:
    video: int
    """Index of the video in the list of scored videos."""
    video_id: str
    start: int
    frame_count: int
    """Frames of the video."""
    weight: int
    """How often the protocol counts this clip."""


def score_student(
    student: Student,
    store: FrameStore,
    videos: Sequence[ScoredVideo],
    clip: ClipConfig,
    protocol: str,
    *,
    classes: int,
    batch_size: int,
    device: torch.device,
    progress: Progress,
    loader_threads: int = 0,
) -> EvaluationResult:
    """Average the softmax over the clips of each video (VMZ), and compute the accuracies.

    Videos that could not be decoded count as wrong, and are listed. Raises DatasetError if no
    video could be decoded, ConfigError if the crop is larger than the frames, FrameStoreError if
    frames are damaged, ComputeError if an output is not finite (the training has diverged).
    """
    clip_protocol = parse_protocol(protocol)
    board = ScoreBoard([video.label for video in videos], classes)
    failed = [video.path for video in videos if video.video_id is None]
    if len(failed) == len(videos):
        raise DatasetError(
            "no test video could be decoded",
            expected=f"frames of the {len(videos)} test videos in the frame store {store.root}",
            found="none",
            remedy="replace the videos, and finetune again with another --out",
        )
    for _ in failed:
        board.add_failed(clip_protocol.clips_of_failed)
    clips = list(_clips(store, videos, clip_protocol, clip.frames))
    student = student.to(device).eval()
    progress.start("evaluate", len(clips), "clips")
    batches = prefetch(
        lambda batch: (batch, _load(store, batch, clip)),
        batched(clips, batch_size),
        loader_threads,
    )
    for (batch, pixels_BTCHW), _ in batches:
        probability_BC = _probabilities(student, pixels_BTCHW.to(device), clip)
        video_B = np.array([item.video for item in batch])
        weight_B = np.array([item.weight for item in batch])
        board.add(video_B, weight_B, probability_BC.cpu().numpy())
        progress.advance(len(batch))
    progress.finish()
    return board.result(protocol, failed)


def _clips(
    store: FrameStore, videos: Sequence[ScoredVideo], protocol: ClipProtocol, frames: int
) -> Iterator[_Clip]:
    """Every distinct clip of the videos that could be decoded, once each."""
    for index, video in enumerate(videos):
        if video.video_id is None:
            continue
        frame_count = store.videos[video.video_id].frame_count
        starts, weights = np.unique(
            protocol_clip_starts(protocol, frame_count, frames), return_counts=True
        )
        for start, weight in zip(starts.tolist(), weights.tolist(), strict=True):
            yield _Clip(index, video.video_id, start, frame_count, weight)


def _load(store: FrameStore, clips: Sequence[_Clip], config: ClipConfig) -> Tensor:
    """uint8 [B, T, C, crop, crop]; C is 3 for RGB, 2 for flow."""
    return torch.stack(
        [
            centre_crop(
                store.clip(
                    clip.video_id,
                    clip_indices(clip.start, clip.frame_count, config.frames).tolist(),
                ),
                config.crop,
            )
            for clip in clips
        ]
    )


@torch.inference_mode()
def _probabilities(student: Student, pixels_BTCHW: Tensor, config: ClipConfig) -> Tensor:
    """Softmax of the labels head, float64 [B, classes]."""
    no_flip_B = torch.zeros(len(pixels_BTCHW), dtype=torch.bool, device=pixels_BTCHW.device)
    outputs: dict[str, Tensor] = student(to_clip(pixels_BTCHW, no_flip_B, config))
    return outputs[LABELS_HEAD].double().softmax(dim=1)
