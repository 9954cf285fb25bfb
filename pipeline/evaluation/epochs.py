"""Evaluates a student during training, on all workers of the training."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from distinit.pipeline.datasets.scored import ScoredVideo
from distinit.pipeline.evaluation.metrics import ScoreBoard, clip_scores
from distinit.pipeline.evaluation.scorer import Scorer, Scoring, plan_tasks
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.collective import Collective
from distinit.schemas.evaluation import Average, ScoredSubset
from distinit.schemas.run import TOP5_CLASSES, EvaluationResult

__all__ = ["EpochEvaluator", "epoch_metrics"]


@dataclass(frozen=True, slots=True)
class EpochEvaluator:
    """See Evaluator. The scores of clips are not stored."""

    every: int
    subset: ScoredSubset
    store: FrameStore
    videos: tuple[ScoredVideo, ...]
    scoring: Scoring
    classes: int
    average: Average = "softmax"

    def evaluate(
        self, student: Student, collective: Collective, device: torch.device
    ) -> dict[str, int | float]:
        """The accuracies in percent; equal on all workers. Leaves ``student`` in evaluation mode.

        Each worker scores its share of the tasks, and their sums are exchanged.
        Raises ConfigError, FrameStoreError, ComputeError as ``score_student``.
        """
        board = ScoreBoard([video.label for video in self.videos], self.classes, self.average)
        failed = [video.path for video in self.videos if video.video_id is None]
        board.add_failed(len(failed), self.scoring.protocol)
        scorer = Scorer(student.eval(), self.store, self.scoring, device)
        tasks = plan_tasks(self.store, self.videos, self.scoring)
        for task in tasks[collective.rank :: collective.world_size]:
            for part in scorer.score(task):
                scores_NC = clip_scores(part.logits_NC, self.average)
                board.add(part.video_N, part.weight_N, scores_NC)
        if collective.world_size > 1:
            board.sum_over(collective, device)
        return epoch_metrics(board.result(self.scoring.protocol, failed))


def epoch_metrics(result: EvaluationResult) -> dict[str, int | float]:
    """What a line of ``evaluations.jsonl`` holds of a result; no top-5 with up to five classes."""
    names = {"videos", "clips", "per_clip", "top1"}
    names |= {"top5"} if result.classes > TOP5_CLASSES else set()
    return result.model_dump(include=names)
