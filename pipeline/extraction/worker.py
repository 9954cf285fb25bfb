"""One extraction worker: decodes videos, runs the teachers, and writes the units of a task.

Several threads decode one video each, store its frames and submit them to the teachers
(``readers``). The teachers compute in their own threads or on the GPU, where a batch may hold
frames of several videos. This thread waits for the logits of each batch and passes them to a
writing thread (``sink``). When the last videos of a task have been started, those of upcoming
tasks follow, so that neither decoders nor teachers wait: not between tasks, and not where each task
is one long video.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from distinit.pipeline.extraction.group import GroupInProgress, VideoInProgress
from distinit.pipeline.extraction.in_flight import InFlight
from distinit.pipeline.extraction.ordered_frames import WaitingRoom
from distinit.pipeline.extraction.readers import (
    Committed,
    Decoded,
    Ended,
    Event,
    Overflowed,
    Restarted,
    Submitted,
    VideoReaders,
    WriteFailed,
)
from distinit.pipeline.extraction.storable import require_storable
from distinit.pipeline.extraction.task import ExtractionTask, Note, WorkerSpec
from distinit.pipeline.extraction.worker_teachers import WorkerTeachers
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.video.decode import usable_decode
from distinit.pipeline.video.retry import KillLimit
from distinit.schemas.errors import DecodeError, DecodeKilledError, TargetError
from distinit.schemas.manifest import UnitCommit, VideoOutcome, failed_outcome

__all__ = ["ExtractionWorker"]

_NOTE_SECONDS = 0.2  # until the driver has the id of a video that may kill this process


class ExtractionWorker:
    """Holds the teachers and runs one task after another. Call ``close`` after the last."""

    def __init__(self, spec: WorkerSpec, teachers: Mapping[str, Teacher]) -> None:
        """``teachers`` by id, on their device."""
        self._spec = spec
        self._decode, self._warning = usable_decode(spec.decode)
        self._teachers = WorkerTeachers(teachers)
        self._kills = KillLimit()
        self._groups: list[GroupInProgress] = []  # of the current task, and of upcoming ones
        self._abandoned: list[GroupInProgress] = []  # some of their videos have not yet ended
        self._events: InFlight[Event]
        self._readers: VideoReaders | None = None
        self._encoders: ThreadPoolExecutor
        self._room: WaitingRoom

    def run(
        self, task: ExtractionTask, upcoming: Sequence[ExtractionTask]
    ) -> Generator[Note, None, tuple[UnitCommit, ...]]:
        """Extract and commit every video of ``task``.

        The videos of the first of ``upcoming`` follow; those of further ones where these are not
        enough to decode ``parallel_videos`` at a time. At most as many of these tasks are open.

        A video that cannot be decoded, or for which a teacher has no usable output, is recorded
        as failed. If its ffmpeg was killed from outside, the task is first restarted.

        Raises:
            StorageError: The cache or the frame store cannot be written.
            CacheMismatchError: The frames differ from those that the cache already has.
        """
        if self._warning:
            yield Note("", message=self._warning)
            self._warning = ""
        while True:
            try:
                with suppress(DecodeKilledError):
                    return (yield from self._attempt(task, upcoming))
            except BaseException:
                self.close()
                raise
            self.close()  # videos of upcoming tasks may hold spool space that this task needs again

    def close(self) -> None:
        """End all work in progress, such as that on upcoming tasks."""
        if self._readers is None:
            return
        groups = [*self._groups, *self._abandoned]
        for group in groups:
            group.stop()
        self._readers.close()
        self._readers = None
        for group in groups:
            group.close()
        self._groups.clear()
        self._abandoned.clear()
        self._encoders.shutdown()

    def _attempt(
        self, task: ExtractionTask, upcoming: Sequence[ExtractionTask]
    ) -> Generator[Note, None, tuple[UnitCommit, ...]]:
        group = self._current_group(task)
        self._abandon_all_but(task, upcoming)
        if task.one_at_a_time:
            yield from self._run_one_by_one(group)
            upcoming = ()
        self._begin_ahead(upcoming)
        yield from group.held_notes
        group.held_notes.clear()
        if group.has_ended:
            self._commit(group)
        while True:
            event = self._events.take()
            if isinstance(event, Committed):
                return self._finish(group, event)
            yield from self._handle(event)
            if isinstance(event, Ended):
                if event.video.group is group and group.has_ended:
                    self._commit(group)
                self._begin_ahead(upcoming)

    def _current_group(self, task: ExtractionTask) -> GroupInProgress:
        """The group of ``task``, now the first: begun ahead, or new, without any other."""
        group = self._find(task)
        if group is None:
            self.close()
            self._begin(task)
            (group,) = self._groups
        self._groups.remove(group)
        self._groups.insert(0, group)
        return group

    def _find(self, task: ExtractionTask) -> GroupInProgress | None:
        return next((group for group in self._groups if group.task == task), None)

    def _abandon_all_but(self, task: ExtractionTask, upcoming: Sequence[ExtractionTask]) -> None:
        """End the groups that were begun ahead, but whose tasks another worker has got."""
        for group in [group for group in self._groups if group.task not in (task, *upcoming)]:
            self._groups.remove(group)
            self._abandoned.append(group)
            group.abandon()
        self._close_abandoned()

    def _close_abandoned(self) -> None:
        for group in [group for group in self._abandoned if group.has_ended]:
            self._abandoned.remove(group)
            group.close()

    def _begin_ahead(self, upcoming: Sequence[ExtractionTask]) -> None:
        """Begin the next task, and further ones if fewer videos are left than can be decoded."""
        most = self._spec.parallel_videos
        for task in upcoming:
            left = sum(group.unended_count for group in self._groups)
            is_enough = len(self._groups) > 1 and left > most
            if task.one_at_a_time or is_enough or len(self._groups) > most:
                return
            if self._find(task) is None:
                self._begin(task)

    def _begin(self, task: ExtractionTask) -> None:
        """Open a group for ``task``, and start its videos after those that were started before."""
        if self._readers is None:
            self._encoders = ThreadPoolExecutor(self._spec.parallel_videos, "encode")
            self._events = InFlight(self._teachers.max_frames, self._teachers.max_bytes)
            self._room = WaitingRoom()
            self._readers = VideoReaders(self._spec, self._decode, self._teachers, self._events)
        events = self._events

        def on_error(error: BaseException) -> None:
            events.put_unless_stopped(WriteFailed(error))

        group = GroupInProgress(task, self._spec, self._encoders, self._room, on_error)
        self._groups.append(group)
        if not task.one_at_a_time:
            self._readers.start(group.videos)

    def _run_one_by_one(self, group: GroupInProgress) -> Iterator[Note]:
        """Process the videos one by one; the driver is told which before anything can happen."""
        for video in group.videos:
            yield replace(video.note(), alone=True)
            time.sleep(_NOTE_SECONDS)
            if self._readers is not None:
                self._readers.start([video])
            while group.ended_count <= video.position:
                for note in self._handle(self._events.take()):
                    yield replace(note, alone=True)

    def _commit(self, group: GroupInProgress) -> None:
        events = self._events
        group.commit_in_background(
            lambda result: events.put_unless_stopped(Committed(group, result))
        )

    def _finish(self, group: GroupInProgress, event: Committed) -> tuple[UnitCommit, ...]:
        if isinstance(event.result, BaseException):
            raise event.result
        self._groups.remove(group)
        group.close()
        return event.result

    def _handle(self, event: Event) -> Iterator[Note]:
        match event:
            case Decoded(video, frame_count):
                yield from self._told(video, video.note(frame_count))
            case Submitted():
                self._write_rows(event)
            case Overflowed(video, rows):
                video.group.sink.overflow(video.video, rows)
            case Restarted(video):
                video.group.sink.restart(video.video)
            case WriteFailed(error):
                raise error
            case Ended(video) if video.group in self._abandoned:
                video.group.ended_count += 1
                self._close_abandoned()
            case Ended(video, result):
                yield from self._told(video, self._end(video, result))

    def _told(self, video: VideoInProgress, note: Note) -> Iterator[Note]:
        """The note, if its task is the current one; else it is held until it is.

        Another worker may get the next task: what both told of a video would count twice.
        """
        if video.group is self._groups[0]:
            yield note
        else:
            video.group.held_notes.append(note)

    def _write_rows(self, event: Submitted) -> None:
        """Wait for the logits of a batch and queue its rows, unless its video is abandoned."""
        video, batch = event.video, event.batch
        try:
            if not video.abandoned.is_set():
                logits_NC = {name: wait() for name, wait in event.pending.items()}
                for teacher in video.group.task.spec.teachers:
                    require_storable(logits_NC[teacher.id], teacher, batch.index_N)
                video.group.sink.add(video.video, batch, event.time_base, logits_NC)
                exact_NC = {name: wait() for name, wait in event.exact.items()}
                video.group.sink.note_precision_loss(video.video, exact_NC, logits_NC)
        except TargetError as error:
            video.refusal = error.problem
            video.abandoned.set()
        self._events.release(len(batch.index_N), event.byte_count)

    def _end(self, video: VideoInProgress, result: VideoOutcome | BaseException | None) -> Note:
        """Record how a video ended. Raises what is not the fault of the video."""
        group, planned = video.group, video.video
        if isinstance(result, VideoOutcome) and not video.refusal:
            outcome = result
            group.sink.finish(planned, outcome)
        elif isinstance(result, DecodeError) and not video.refusal:
            self._kills.check(planned.video_id, result)
            reason = self._spec.source.reason(planned.path, planned.digest, result)
            outcome = failed_outcome(planned.video_id, reason)
            group.sink.fail(planned, outcome)
        elif isinstance(result, BaseException) and not isinstance(result, DecodeError):
            raise result
        else:
            outcome = failed_outcome(planned.video_id, video.refusal)
            group.sink.refuse(planned, outcome)
        group.ended_count += 1
        return replace(video.note(), outcome=outcome, unanswered=bool(video.refusal))
