"""Accuracies of clips and videos. Ties go to the class with the lower index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distinit.schemas.errors import ComputeError
from distinit.schemas.run import EvaluationResult

__all__ = ["ScoreBoard", "class_ranks", "confusion_matrix"]

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


class ScoreBoard:
    """Accumulates class probabilities of clips, in any order; a video's score is their mean."""

    def __init__(self, labels: Sequence[int], classes: int) -> None:
        """``labels``: the true class of each video, including those that failed."""
        self._label_V = np.asarray(labels, np.int64)
        self._sum_VC = np.zeros((len(labels), classes))
        self._clips_V = np.zeros(len(labels), np.int64)
        self._correct_V = np.zeros(len(labels), np.int64)
        self._failed_clips = 0

    def add(self, video_N: Ints, weight_N: Ints, probability_NC: Floats) -> None:
        """Add clip n of video ``video_N[n]``, counted ``weight_N[n]`` times.

        Raises ComputeError if a probability is not a finite number.
        """
        if not np.isfinite(probability_NC).all():
            raise ComputeError(
                "the student's output is not a finite number",
                remedy="the training has diverged: lower the learning rate and train again",
            )
        np.add.at(self._sum_VC, video_N, probability_NC * weight_N[:, None])
        np.add.at(self._clips_V, video_N, weight_N)
        correct_N = class_ranks(probability_NC, self._label_V[video_N]) == 0
        np.add.at(self._correct_V, video_N, weight_N * correct_N)

    def add_failed(self, clips: int) -> None:
        """Add a video that could not be decoded: all its clips count as wrong."""
        self._failed_clips += clips

    def result(self, protocol: str, failed: Sequence[str]) -> EvaluationResult:
        """The metrics over all videos; a video without clips counts as wrong.

        ``failed``: paths of the videos that could not be decoded. ``confusion`` counts only the
        videos that have clips.
        """
        videos, classes = self._sum_VC.shape
        has_clips_V = self._clips_V > 0
        label_N = self._label_V[has_clips_V]
        mean_NC = self._sum_VC[has_clips_V] / self._clips_V[has_clips_V, None]
        rank_N = class_ranks(mean_NC, label_N)
        clips = int(self._clips_V.sum()) + self._failed_clips
        confusion_CC = confusion_matrix(label_N, mean_NC.argmax(axis=1), classes)
        return EvaluationResult(
            protocol=protocol,
            videos=videos,
            clips=clips,
            per_clip=_percent(int(self._correct_V.sum()), clips),
            top1=_percent(int((rank_N < 1).sum()), videos),
            top5=_percent(int((rank_N < 5).sum()), videos),
            classes=classes,
            confusion=tuple(tuple(row) for row in confusion_CC.tolist()),
            failed_videos=tuple(failed),
        )


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
