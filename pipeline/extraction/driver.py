"""The driver's loop: hand tasks to workers, show progress, count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distinit.pipeline.compute.executor import Executor, Progressed
from distinit.pipeline.extraction.quarantine import requeue
from distinit.pipeline.extraction.worker import ExtractionTask, ExtractionWorker, Note
from distinit.pipeline.progress import Progress

__all__ = ["TasksRun", "run_tasks"]


@dataclass(frozen=True, slots=True)
class TasksRun:
    """What ``run_tasks`` has done."""

    frames: int
    failed: int
    gave_up: bool


def run_tasks(
    executor: Executor,
    factory: Callable[[], ExtractionWorker],
    tasks: Sequence[ExtractionTask],
    max_attempts: int,
    failures_allowed: int,
    progress: Progress,
) -> TasksRun:
    """Run ``tasks`` to their end. Raises what a worker raises.

    When more than ``failures_allowed`` videos have failed, no more tasks begin; those under way
    end and are committed.
    """
    expected = sum(video.probed_frames for task in tasks for video in task.spec.videos)
    units_total = sum(task.spec.task.units for task in tasks)
    progress.start("extract", expected, "frames")
    frames = videos = failed = units = 0
    try:
        for event in executor.run(factory, tasks, requeue(max_attempts)):
            if not isinstance(event, Progressed):
                units += event.task.spec.task.units
                progress.advance(0, units=f"{units}/{units_total}")
                continue
            note: Note = event.note
            task: ExtractionTask = event.task
            frames += note.frames
            if note.outcome is not None:
                videos += 1
                failed += note.outcome.status == "failed"
                if failed > failures_allowed:
                    executor.drain()
                if note.outcome.status == "failed":
                    progress.message(f"failed: {task.path_of(note.video_id)}: {note.outcome.error}")
            if note.frames or note.outcome is not None:
                progress.advance(note.frames, videos=videos, failed=failed)
    finally:
        progress.finish()
    return TasksRun(frames, failed, gave_up=failed > failures_allowed)
