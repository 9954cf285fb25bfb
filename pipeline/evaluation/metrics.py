"""Accuracies of clips and videos. Ties go to the class with the lower index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from distinit.pipeline.evaluation.clips import parse_protocol
from distinit.pipeline.training.collective import Collective
from distinit.schemas.errors import ComputeError
from distinit.schemas.evaluation import Average
from distinit.schemas.run import EvaluationResult
from distinit.schemas.training import Precision

__all__ = ["ScoreBoard", "class_ranks", "clip_scores", "confusion_matrix"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def class_ranks(scores_NC: Floats, label_N: Ints) -> Ints:
    """Rank [N] of the true class from 0: top-1 is correct at rank 0, top-5 at ranks below 5."""
    true_N1 = np.take_along_axis(scores_NC, label_N[:, None], axis=1)
    lower_index_NC = np.arange(scores_NC.shape[1]) < label_N[:, None]
    before_NC = (scores_NC > true_N1) | ((scores_NC == true_N1) & lower_index_NC)
    rank_N: Ints = before_NC.sum(axis=1)
    return rank_N


def confusion_matrix(label_N: Ints, predicted_N: Ints, classes: int) -> Ints:
    """Counts [true class, predicted class]."""
    flat = np.bincount(label_N * classes + predicted_N, minlength=classes * classes)
    return flat.reshape(classes, classes)


def clip_scores(logits_NC: NDArray[np.float32], average: Average) -> Floats:
    """Scores [N, classes] of clips, to be averaged over the clips of a video: see ScoreBoard.

    ``softmax`` and ``max``: probabilities; ``logits``: the logits. Computed in fp64.
    """
    logits = torch.from_numpy(logits_NC.astype(np.float64))
    scores_NC: Floats = (logits if average == "logits" else logits.softmax(dim=1)).numpy()
    return scores_NC


class ScoreBoard:
    """Accumulates the scores of clips, in any order; a video's scores are their mean or maximum."""

    def __init__(self, labels: Sequence[int], classes: int, average: Average = "softmax") -> None:
        """``labels``: the true class of each video, including those that failed.

        ``average``: ``max`` takes the maximum over the clips of a video for each class, the others
        take the mean.
        """
        self._average = average
        self._label_V = np.asarray(labels, np.int64)
        self._total_VC = np.full((len(labels), classes), -np.inf if average == "max" else 0.0)
        self._clips_V = np.zeros(len(labels), np.int64)
        self._correct_V = np.zeros(len(labels), np.int64)
        self._failed_clips = 0

    def add(self, video_N: Ints, weight_N: Ints, score_NC: Floats) -> None:
        """Add clip n of video ``video_N[n]``, counted ``weight_N[n]`` times.

        Raises ComputeError if a score is not a finite number.
        """
        if not np.isfinite(score_NC).all():
            raise ComputeError(
                "the student's output is not a finite number",
                remedy="the training has diverged: lower the learning rate and train again",
            )
        if self._average == "max":
            np.maximum.at(self._total_VC, video_N, score_NC)
        else:
            np.add.at(self._total_VC, video_N, score_NC * weight_N[:, None])
        np.add.at(self._clips_V, video_N, weight_N)
        correct_N = class_ranks(score_NC, self._label_V[video_N]) == 0
        np.add.at(self._correct_V, video_N, weight_N * correct_N)

    def add_failed(self, videos: int, protocol: str) -> None:
        """Add videos that could not be decoded: all their clips count as wrong."""
        self._failed_clips += videos * parse_protocol(protocol).clips_of_failed

    def sum_over(self, collective: Collective, device: torch.device) -> None:
        """Add what the other workers of a run have added, which must be clips of other videos.

        Failed videos are not exchanged: each worker adds all of them. ``device``: for the exchange.
        """
        own_VC = np.where(self._clips_V[:, None] > 0, self._total_VC, 0)
        columns = np.column_stack([own_VC, self._clips_V, self._correct_V])
        tensor = torch.from_numpy(columns).to(device)
        collective.sum_(tensor)
        columns = tensor.cpu().numpy()
        self._total_VC = columns[:, :-2]
        self._clips_V, self._correct_V = columns[:, -2:].astype(np.int64).T

    def video_scores(self) -> Floats:
        """Scores [V, classes]; not meaningful for videos without clips."""
        if self._average == "max":
            return self._total_VC
        return self._total_VC / np.maximum(1, self._clips_V)[:, None]

    def correct_videos(self) -> NDArray[np.bool_]:
        """Whether the class of each video is predicted correctly: [V]; False without clips."""
        ranks_V = class_ranks(self.video_scores(), self._label_V)
        correct_V: NDArray[np.bool_] = (ranks_V == 0) & (self._clips_V > 0)
        return correct_V

    def result(
        self, protocol: str, failed: Sequence[str], precision: Precision = "fp32"
    ) -> EvaluationResult:
        """The metrics over all videos; a video without clips counts as wrong.

        ``failed``: paths of the videos that could not be decoded. ``confusion`` counts only the
        videos that have clips. ``precision`` is recorded.
        """
        videos, classes = self._total_VC.shape
        has_clips_V = self._clips_V > 0
        label_N = self._label_V[has_clips_V]
        mean_NC = self.video_scores()[has_clips_V]
        rank_N = class_ranks(mean_NC, label_N)
        clips = int(self._clips_V.sum()) + self._failed_clips
        confusion_CC = confusion_matrix(label_N, mean_NC.argmax(axis=1), classes)
        return EvaluationResult(
            protocol=protocol,
            average=self._average,
            precision=precision,
            videos=videos,
            clips=clips,
            per_clip=_percent(int(self._correct_V.sum()), clips),
            top1=_percent(int((rank_N < 1).sum()), videos),
            top5=_percent(int((rank_N < 5).sum()), videos),
            classes=classes,
            confusion=tuple(tuple(row) for row in confusion_CC.tolist()),
            class_top1=self._class_top1(confusion_CC),
            failed_videos=tuple(failed),
        )

    def _class_top1(self, confusion_CC: Ints) -> tuple[float | None, ...]:
        classes = len(confusion_CC)
        videos_C = np.bincount(self._label_V, minlength=classes).tolist()
        correct_C = confusion_CC.diagonal().tolist()
        pairs = zip(correct_C, videos_C, strict=True)
        return tuple(_percent(correct, videos) if videos else None for correct, videos in pairs)


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
