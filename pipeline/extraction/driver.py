"""The driver's loop: run the tasks on an executor, count what they report, show progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from distinit.pipeline.compute.executor import Executor, Progressed
from distinit.pipeline.extraction.quarantine import requeue
from distinit.pipeline.extraction.task import ExtractionTask, Note
from distinit.pipeline.extraction.worker import ExtractionWorker
from distinit.pipeline.progress import Progress

__all__ = ["RunTotals", "run_tasks", "tasks_ahead"]

_MANY_UNANSWERED = 10  # videos; with fewer, the teacher is not assumed to be broken


@dataclass(frozen=True, slots=True)
class RunTotals:
    """Totals over the tasks of ``run_tasks``; ``stopped_early``: some tasks were not started."""

    frame_count: int
    failed_count: int
    stopped_early: bool
    broken_teacher: str = ""
    """Why most videos are without a usable output, else empty. Then ``stopped_early`` is true."""


@dataclass(slots=True)
class _Tally:
    """Counts over the notes of all workers. A video that starts again is not counted twice."""

    unit_count: int = 0
    frame_count: int = 0
    failed: set[str] = field(default_factory=set)
    unanswered: dict[str, str] = field(default_factory=dict)  # reason
    shown: set[str] = field(default_factory=set)  # messages
    _video_count: int = 0  # of finished tasks
    _in_progress: dict[str, Note] = field(default_factory=dict)  # sums for unfinished tasks

    @property
    def video_count(self) -> int:
        """Number of videos that are finished."""
        return self._video_count + sum(
            note.outcome is not None for note in self._in_progress.values()
        )

    def add(self, note: Note) -> int:
        """Count a note; returns the change of the frame count, which may be negative."""
        before = self._in_progress.get(note.video_id, Note(note.video_id)).frame_count
        starts = note.outcome is None and not note.frame_count
        frame_count = 0 if starts else before + note.frame_count
        self._in_progress[note.video_id] = replace(note, frame_count=frame_count)
        self.frame_count += frame_count - before
        if _failed(note):
            self.failed.add(note.video_id)
        if note.outcome is not None and note.unanswered:
            self.unanswered[note.video_id] = note.outcome.error or ""
        return frame_count - before

    @property
    def broken_teacher(self) -> str:
        """The reason, if more than half of the videos, and at least ten, have no usable output."""
        count = len(self.unanswered)
        if count < _MANY_UNANSWERED or 2 * count <= self.video_count:
            return ""
        return f"{count} of {self.video_count} videos: {next(iter(self.unanswered.values()))}"

    def finish(self, task: ExtractionTask) -> None:
        """Count a finished task."""
        self.unit_count += task.spec.group.units
        for video in task.spec.videos:
            self._video_count += self._in_progress.pop(video.video_id, None) is not None


def run_tasks(
    executor: Executor,
    factory: Callable[[], ExtractionWorker],
    tasks: Sequence[ExtractionTask],
    max_attempts: int,
    failures_allowed: int,
    progress: Progress,
    *,
    parallel_videos: int = 1,
) -> RunTotals:
    """Run all ``tasks``, whose workers decode ``parallel_videos`` at a time.

    Raises what a worker raises.

    Once more than ``failures_allowed`` videos have failed, or most videos are without a usable
    output, no more tasks are started; those in progress are finished and committed.
    """
    videos = [video for task in tasks for video in task.spec.videos]
    units = sum(task.spec.group.units for task in tasks)
    progress.start("extract", sum(video.video.probe.frame_count for video in videos), "frames")
    tally = _Tally()
    ahead = partial(tasks_ahead, parallel_videos)

    def show(new_frames: int) -> None:
        counts = {"videos": (tally.video_count, len(videos)), "units": (tally.unit_count, units)}
        progress.advance(new_frames, **counts, failed=len(tally.failed))

    try:
        show(0)
        for event in executor.run(factory, tasks, requeue(max_attempts), ahead):
            if isinstance(event, Progressed):
                _report(event.note, tally, progress)
                show(0 if event.note.message else tally.add(event.note))
            else:
                tally.finish(event.task)
                show(0)
            if len(tally.failed) > failures_allowed or tally.broken_teacher:
                executor.drain()
    finally:
        progress.finish()
    broken = tally.broken_teacher
    stopped_early = len(tally.failed) > failures_allowed or bool(broken)
    return RunTotals(tally.frame_count, len(tally.failed), stopped_early, broken)


def tasks_ahead(
    parallel_videos: int, waiting: Iterable[ExtractionTask]
) -> Iterator[ExtractionTask]:
    """The first tasks that together have ``parallel_videos`` videos: a worker begins no more."""
    video_count = 0
    for task in waiting:
        yield task
        video_count += len(task.spec.videos)
        if video_count >= parallel_videos:
            return


def _failed(note: Note) -> bool:
    return note.outcome is not None and note.outcome.status == "failed"


def _report(note: Note, tally: _Tally, progress: Progress) -> None:
    """Show each failed video and each message of the workers once."""
    if note.message and note.message not in tally.shown:
        tally.shown.add(note.message)
        progress.message(note.message)
    if note.outcome is not None and _failed(note) and note.video_id not in tally.failed:
        progress.message(f"failed: {note.path}: {note.outcome.error}")
