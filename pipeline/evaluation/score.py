"""Scores a finetuned student on the test videos of a dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distinit.pipeline.datasets.scored import ScoredVideo
from distinit.pipeline.evaluation.clip_batches import (
    clip_batches,
    protocol_clips,
    student_input,
)
from distinit.pipeline.evaluation.clips import parse_protocol
from distinit.pipeline.evaluation.metrics import ScoreBoard
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import Progress
from distinit.pipeline.students.heads import Student
from distinit.schemas.errors import DatasetError
from distinit.schemas.run import EvaluationResult
from distinit.schemas.training import ClipConfig

__all__ = ["LABELS_HEAD", "score_student"]

LABELS_HEAD = "labels"
"""Name of the only head of a finetuned student."""


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
    scored = [(number, v.video_id) for number, v in enumerate(videos) if v.video_id is not None]
    video_ids = [video_id for _, video_id in scored]
    clips = sum(len(protocol_clips(store, name, protocol, clip)) for name in video_ids)
    student = student.to(device).eval()
    progress.start("evaluate", clips, "clips")
    for batch in clip_batches(
        store, video_ids, protocol, clip, batch_size=batch_size, loader_threads=loader_threads
    ):
        probability_BC = _probabilities(student, student_input(batch.pixels_BTCHW, clip, device))
        video_B = np.array([scored[item.video][0] for item in batch.clips])
        weight_B = np.array([item.weight for item in batch.clips])
        board.add(video_B, weight_B, probability_BC.cpu().numpy())
        progress.advance(len(batch.clips))
    progress.finish()
    return board.result(protocol, failed)


@torch.inference_mode()
def _probabilities(student: Student, clip_BCTHW: Tensor) -> Tensor:
    """Softmax of the labels head, float64 [B, classes]."""
    outputs: dict[str, Tensor] = student(clip_BCTHW)
    return outputs[LABELS_HEAD].double().softmax(dim=1)
