"""Scores a finetuned student on the test videos of a dataset, in this process or on Ray workers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from distinit.pipeline.compute.executor import Executor, Finished
from distinit.pipeline.compute.in_process import InProcessExecutor
from distinit.pipeline.compute.ray_actors import RayExecutor
from distinit.pipeline.datasets.scored import ScoredVideo
from distinit.pipeline.evaluation.metrics import ScoreBoard, clip_scores
from distinit.pipeline.evaluation.scorer import (
    LABELS_HEAD,
    ClipScores,
    Scoring,
    ScoringTask,
    WorkerBuilder,
    plan_tasks,
)
from distinit.pipeline.evaluation.scores_file import ScoresWriter
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import Progress
from distinit.pipeline.students.heads import Student
from distinit.schemas.compute import ComputeConfig
from distinit.schemas.errors import ComputeError, ConfigError, DatasetError
from distinit.schemas.evaluation import Average, ScoresRecord
from distinit.schemas.run import EvaluationResult
from distinit.schemas.wording import counted

__all__ = ["LABELS_HEAD", "score_student"]


def score_student(
    student: Student,
    store: FrameStore,
    videos: Sequence[ScoredVideo],
    scoring: Scoring,
    *,
    classes: int,
    progress: Progress,
    average: Average = "softmax",
    device: str = "cpu",
    compute: ComputeConfig | None = None,
    scores: tuple[Path, ScoresRecord] | None = None,
) -> EvaluationResult:
    """Average the scores over the clips of each video, and compute the accuracies.

    Videos that could not be decoded count as wrong, and are listed. With ``compute.workers`` the
    videos are split over Ray workers, each of which gets a copy of the student. ``device`` is that
    of this process; Ray workers use the GPUs that they reserve. ``scores``: where to write the
    scores of the clips, and their record; the file appears when all clips are scored.

    Raises DatasetError if no video could be decoded, ConfigError if the crop is larger than the
    frames, FrameStoreError if frames are damaged, StorageError, ComputeError if an output is not
    finite (the training has diverged) or a worker dies repeatedly.
    """
    compute = compute or ComputeConfig()
    board = _new_board(videos, classes, scoring.protocol, average, store)
    failed = [video.path for video in videos if video.video_id is None]
    builder = _builder(student, store, scoring, device, compute)
    tasks = plan_tasks(store, videos, scoring)
    progress.start("evaluate", sum(task.clips for task in tasks), "clips")
    with ExitStack() as stack:
        executor: Executor = RayExecutor(compute) if compute.workers else InProcessExecutor()
        stack.callback(executor.close)
        writer = None
        if scores is not None:
            writer = stack.enter_context(ScoresWriter.create(*scores, videos))
        for part in _in_order(executor, builder, tasks, compute, progress):
            board.add(part.video_N, part.weight_N, clip_scores(part.logits_NC, average))
            if writer is not None:
                writer.append(part)
    progress.finish()
    return board.result(scoring.protocol, failed, scoring.precision)


def _new_board(
    videos: Sequence[ScoredVideo],
    classes: int,
    protocol: str,
    average: Average,
    store: FrameStore,
) -> ScoreBoard:
    """A board with the videos that could not be decoded. Raises DatasetError if these are all."""
    board = ScoreBoard([video.label for video in videos], classes, average)
    failed = sum(video.video_id is None for video in videos)
    if failed == len(videos):
        raise DatasetError(
            "none of the videos to score could be decoded",
            expected=f"frames of the {len(videos)} videos in the frame store {store.root}",
            found="none",
            remedy="replace the videos, and finetune again with another --out",
        )
    board.add_failed(failed, protocol)
    return board


def _builder(
    student: Student, store: FrameStore, scoring: Scoring, device: str, compute: ComputeConfig
) -> WorkerBuilder:
    if not compute.workers:
        return WorkerBuilder(student, store, scoring, device)
    if device.startswith("cuda") and not compute.gpus_per_worker:
        raise ConfigError(
            f"device {device} needs Ray workers that reserve a GPU",
            expected="--gpus-per-worker above 0",
            found="0",
            remedy="add --gpus-per-worker 1, or use --device auto",
        )
    on_worker = "cuda" if compute.gpus_per_worker else "cpu"
    home = os.environ.get("XDG_CACHE_HOME")
    return WorkerBuilder(student.cpu(), store, scoring, on_worker, home)


def _in_order(
    executor: Executor,
    builder: WorkerBuilder,
    tasks: Sequence[ScoringTask],
    compute: ComputeConfig,
    progress: Progress,
) -> Iterator[ClipScores]:
    """Run all tasks; yield their scores in the order of the tasks, each as soon as possible.

    Raises ComputeError if not exactly the planned clips were scored.
    """
    done: dict[int, ClipScores] = {}
    shown: Counter[int] = Counter()  # clips of each task that the progress bar counts
    first = 0
    for event in executor.run(builder, tasks, _Deaths(compute.max_attempts)):
        number = event.task.number
        if isinstance(event, Finished):
            done[number] = event.result
        else:
            before = min(shown[number], event.task.clips)
            shown[number] += event.note  # more than its clips, if the task had to be repeated
            progress.advance(min(shown[number], event.task.clips) - before)
        while first in done:
            scores = done.pop(first)
            _refuse_other_clips(tasks[first], scores)
            yield scores
            first += 1
    if first != len(tasks):
        raise ComputeError(
            "not all test videos were scored",
            expected=f"{len(tasks)} tasks",
            found=f"{first}",
            remedy="rerun the same command",
        )


def _refuse_other_clips(task: ScoringTask, scores: ClipScores) -> None:
    found = list(dict.fromkeys(scores.video_N.tolist()))
    if len(scores.video_N) != task.clips or found != [index for index, _ in task.videos]:
        raise ComputeError(
            "a worker returned the scores of other clips",
            expected=f"{task.clips} clips of {len(task.videos)} videos",
            found=f"{len(scores.video_N)} clips of {len(found)} videos",
            remedy="rerun the same command, with the same software on all nodes",
        )


class _Deaths:
    """Repeats the task of a worker that died, up to ``max_attempts`` times in all."""

    def __init__(self, max_attempts: int) -> None:
        self._max_attempts = max_attempts
        self._deaths: Counter[int] = Counter()

    def __call__(self, task: ScoringTask, last_note: Any, reason: str) -> ScoringTask:
        """See OnDeath. Raises ComputeError."""
        self._deaths[task.number] += 1
        if self._deaths[task.number] >= self._max_attempts:
            raise ComputeError(
                f"{counted(self._max_attempts, 'worker')} died while scoring the same videos",
                found=reason,
                remedy="check the memory of the nodes, or lower the batch size (evaluate: --set "
                "batch_size=N); rerun the same command",
            )
        return task
