"""The driver's loop: hand tasks to workers, show progress, count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from distinit.pipeline.compute.executor import Executor, Progressed
from distinit.pipeline.extraction.quarantine import requeue
from distinit.pipeline.extraction.worker import ExtractionTask, ExtractionWorker, Note
from distinit.pipeline.progress import Progress

__all__ = ["TasksRun", "run_tasks"]

_MANY_UNANSWERED = 10  # videos; fewer are no verdict on a teacher


@dataclass(frozen=True, slots=True)
class TasksRun:
    """What ``run_tasks`` has done."""

    frames: int
    failed: int
    gave_up: bool
    broken_teacher: str = ""
    """Why most videos have no usable answer; empty if they do. Then it gave up, too."""


@dataclass(slots=True)
class _Tally:
    """What workers have told. A video that begins again counts anew, not twice."""

    units: int = 0
    frames: int = 0
    failed: set[str] = field(default_factory=set)
    unanswered: dict[str, str] = field(default_factory=dict)  # reason
    said: set[str] = field(default_factory=set)
    _videos: int = 0  # of tasks that are done
    _under_way: dict[str, Note] = field(default_factory=dict)  # what is known of a task's videos

    @property
    def videos(self) -> int:
        """Videos that are through."""
        return self._videos + sum(note.outcome is not None for note in self._under_way.values())

    def add(self, note: Note) -> int:
        """Count a note; returns how many frames more there are now, which may be negative."""
        known = self._under_way.get(note.video_id, Note(note.video_id))
        begins = note.outcome is None and not note.frames
        frames = 0 if begins else known.frames + note.frames
        self._under_way[note.video_id] = Note(note.video_id, frames, note.outcome)
        self.frames += frames - known.frames
        if _failed(note):
            self.failed.add(note.video_id)
        if note.outcome is not None and note.unanswered:
            self.unanswered[note.video_id] = note.outcome.error or ""
        return frames - known.frames

    @property
    def broken_teacher(self) -> str:
        """A reason, once most videos, and not only a few, have no usable answer."""
        count = len(self.unanswered)
        if count < _MANY_UNANSWERED or 2 * count <= self.videos:
            return ""
        return f"{count} of {self.videos} videos: {next(iter(self.unanswered.values()))}"

    def finish(self, task: ExtractionTask) -> None:
        """Count a task that is done."""
        self.units += task.spec.group.units
        for video in task.spec.videos:
            self._videos += self._under_way.pop(video.video_id, None) is not None


def run_tasks(
    executor: Executor,
    factory: Callable[[], ExtractionWorker],
    tasks: Sequence[ExtractionTask],
    max_attempts: int,
    failures_allowed: int,
    progress: Progress,
) -> TasksRun:
    """Run ``tasks`` to their end. Raises what a worker raises.

    When more than ``failures_allowed`` videos have failed, or a teacher has no usable answer for
    most of them, no more tasks begin; those under way end and are committed.
    """
    videos = [video for task in tasks for video in task.spec.videos]
    units = sum(task.spec.group.units for task in tasks)
    progress.start("extract", sum(video.probed_frames for video in videos), "frames")
    tally = _Tally()

    def show(frames: int) -> None:
        counts = {"videos": (tally.videos, len(videos)), "units": (tally.units, units)}
        progress.advance(frames, **counts, failed=len(tally.failed))

    try:
        show(0)
        for event in executor.run(factory, tasks, requeue(max_attempts)):
            if isinstance(event, Progressed):
                _say(event.task, event.note, tally, progress)
                show(0 if event.note.message else tally.add(event.note))
            else:
                tally.finish(event.task)
                show(0)
            if len(tally.failed) > failures_allowed or tally.broken_teacher:
                executor.drain()
    finally:
        progress.finish()
    broken = tally.broken_teacher
    gave_up = len(tally.failed) > failures_allowed or bool(broken)
    return TasksRun(tally.frames, len(tally.failed), gave_up, broken)


def _failed(note: Note) -> bool:
    return note.outcome is not None and note.outcome.status == "failed"


def _say(task: ExtractionTask, note: Note, tally: _Tally, progress: Progress) -> None:
    """Tell of a failed video, and what workers have to say: each thing once."""
    if note.message and note.message not in tally.said:
        tally.said.add(note.message)
        progress.message(note.message)
    if note.outcome is not None and _failed(note) and note.video_id not in tally.failed:
        progress.message(f"failed: {task.path_of(note.video_id)}: {note.outcome.error}")
