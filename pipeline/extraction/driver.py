"""The driver's loop: hand tasks to workers, show progress, count."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distinit.pipeline.compute.executor import Executor, Progressed
from distinit.pipeline.extraction.quarantine import requeue
from distinit.pipeline.extraction.worker import ExtractionTask, ExtractionWorker, Note
from distinit.pipeline.progress import Progress

__all__ = ["run_tasks"]


def run_tasks(
    executor: Executor,
    factory: Callable[[], ExtractionWorker],
    tasks: Sequence[ExtractionTask],
    max_attempts: int,
    progress: Progress,
) -> int:
    """Run ``tasks`` to their end; returns the frames decoded. Raises what a worker raises."""
    expected = sum(video.probed_frames for task in tasks for video in task.spec.videos)
    progress.start("extract", expected, "frames")
    frames = videos = failed = 0
    try:
        for event in executor.run(factory, tasks, requeue(max_attempts)):
            if not isinstance(event, Progressed):
                continue
            note: Note = event.note
            task: ExtractionTask = event.task
            frames += note.frames
            if note.outcome is not None:
                videos += 1
                failed += note.outcome.status == "failed"
                if note.outcome.status == "failed":
                    progress.message(f"failed: {task.path_of(note.video_id)}: {note.outcome.error}")
            if note.frames or note.outcome is not None:
                progress.advance(note.frames, videos=videos, failed=failed)
    finally:
        progress.finish()
    return frames
