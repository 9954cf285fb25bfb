"""One extraction worker: decodes videos, runs the teachers, and writes the units of a task.

Four things run at once: ffmpeg processes decode the current and the next videos, this thread
collects their frames into batches, the teachers compute the previous batch in their threads or on
the GPU, and a writing thread encodes JPEGs and logits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from distinit.pipeline.cache.fence import behind_fence
from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.corpus.source import VideoSource
from distinit.pipeline.extraction.batches import FrameBatch, FrameBatcher
from distinit.pipeline.extraction.pending import PendingBatches
from distinit.pipeline.extraction.sink import Sink
from distinit.pipeline.extraction.streams import Streams
from distinit.pipeline.frames.fill import store_view
from distinit.pipeline.frames.writer import FrameStoreWriter, UnitFrameWriter
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.teachers.forward import CPU_BATCH, PendingLogits
from distinit.pipeline.teachers.views import teacher_views
from distinit.pipeline.video.decode import VideoStream, open_video, usable_decode
from distinit.pipeline.video.retry import KillLimit
from distinit.schemas.errors import DecodeError, DecodeKilledError, TargetError
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.manifest import UnitCommit, VideoOutcome, failed_outcome
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["ExtractionTask", "ExtractionWorker", "Note", "WorkerSpec"]

_STORE_VIEW = "store"
_NOTE_SECONDS = 0.2  # until the driver has the id of a video that may kill this process


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Settings of a worker; picklable."""

    source: VideoSource
    frames_root: Path | None
    plan_digest: str
    geometry: FrameGeometry
    sampling: SamplingConfig
    decode: DecodeConfig


@dataclass(frozen=True, slots=True)
class ExtractionTask:
    """A unit group to fill, and those of its videos that are known to kill workers.

    ``quarantined``: video id -> the error to record without opening the video.
    """

    spec: GroupSpec
    quarantined: Mapping[str, str] = field(default_factory=dict)
    deaths: tuple[str, ...] = ()  # ids of the videos in progress when a worker died

    def path_of(self, video_id: str) -> str:
        """Path, relative to the corpus, of one of the task's videos."""
        return next(v.path for v in self.spec.group.videos if v.video_id == video_id)

    def frame_count_of(self, video: PlannedRows) -> int:
        """Frames of one of the task's videos: as decoded for another teacher, else as probed."""
        known = (
            o.frame_count for o in self.spec.committed_outcomes if o.video_id == video.video_id
        )
        return next(known, video.video.probe.frame_count)


@dataclass(frozen=True, slots=True)
class Note:
    """Progress of a worker: ``frame_count`` more frames of ``video_id`` were decoded.

    ``outcome``: set when the video is finished.
    ``message``: a text for the user that concerns no video; then ``video_id`` is empty.
    ``unanswered``: the video failed because a teacher has no usable output for it.
    """

    video_id: str
    frame_count: int = 0
    outcome: VideoOutcome | None = None
    message: str = ""
    unanswered: bool = False


class ExtractionWorker:
    """Holds the teachers and runs one task after another. Call ``close`` after the last."""

    def __init__(self, spec: WorkerSpec, teachers: Mapping[str, Teacher]) -> None:
        """``teachers`` by id, on their device."""
        self._spec = spec
        self._decode, self._warning = usable_decode(spec.decode)
        self._opened_ahead: tuple[ExtractionTask, Streams[PlannedRows]] | None = None
        self._teachers = teachers
        self._batch_size = max((t.batch_size for t in teachers.values()), default=CPU_BATCH)
        self._views, self._view_of = teacher_views(teachers.values())

    def run(
        self, task: ExtractionTask, next_task: ExtractionTask | None
    ) -> Generator[Note, None, tuple[UnitCommit, ...]]:
        """Extract and commit every video of ``task``; start to decode the first of ``next_task``.

        A video that cannot be decoded, or for which a teacher has no usable output, is recorded
        as failed. If its ffmpeg was killed from outside, the task is first restarted.

        Raises:
            StorageError: The cache or the frame store cannot be written.
            CacheMismatchError: The frames differ from those that the cache already has.
        """
        if self._warning:
            yield Note("", message=self._warning)
            self._warning = ""
        limit = KillLimit()
        while True:
            with suppress(DecodeKilledError):
                return (yield from self._attempt(task, next_task, limit))
            self.close()  # streams opened ahead may hold spool space that this task needs again

    def close(self) -> None:
        """Close streams that were opened for a next task."""
        if self._opened_ahead is not None:
            self._opened_ahead[1].close()
            self._opened_ahead = None

    def _attempt(
        self, task: ExtractionTask, next_task: ExtractionTask | None, limit: KillLimit
    ) -> Generator[Note, None, tuple[UnitCommit, ...]]:
        with ExitStack() as stack:
            writer = stack.enter_context(GroupWriter(task.spec))
            store = self._open_store(task.spec.group.first_unit)
            if store is not None:
                stack.callback(store.abort)  # does nothing once committed
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=1))
            sink = Sink(writer, store, pool)
            streams = stack.enter_context(self._take_streams(task))
            for position, video in enumerate(task.spec.videos):
                yield Note(video.video_id)
                if task.deaths:
                    time.sleep(_NOTE_SECONDS)
                stream = streams.take(position)
                if position == len(task.spec.videos) - 1:
                    self._open_ahead(task, next_task)
                yield from self._extract_video(task, video, stream, sink, limit)
            sink.drain()
            if store is not None:
                with behind_fence(CacheLayout(task.spec.root).fence, task.spec.fence):
                    store.commit()
            return writer.commit()

    def _open_store(self, unit: int) -> UnitFrameWriter | None:
        """The frame file of this task; None without a frame store or if it is already committed."""
        if self._spec.frames_root is None:
            return None
        store = FrameStoreWriter(
            self._spec.frames_root, self._spec.geometry, self._spec.plan_digest
        )
        if unit in store.committed_units():
            return None
        return store.open_unit(unit)

    def _open_ahead(self, task: ExtractionTask, next_task: ExtractionTask | None) -> None:
        """Start to decode ``next_task``, so that its first frames are ready when it runs."""
        if next_task is None or self._opened_ahead is not None:
            return
        if self._parallel(task) > 1 and self._parallel(next_task) > 1:
            streams = self._streams(next_task)
            streams.begin()
            self._opened_ahead = next_task, streams

    def _take_streams(self, task: ExtractionTask) -> Streams[PlannedRows]:
        """The streams of this task, which may have been opened ahead."""
        if self._opened_ahead is not None and self._opened_ahead[0] == task:
            streams = self._opened_ahead[1]
            self._opened_ahead = None
            return streams
        self.close()
        return self._streams(task)

    def _parallel(self, task: ExtractionTask) -> int:
        """Videos to decode at once: after a death only one, so that its cause can be identified."""
        return 1 if task.deaths else self._decode.parallel_videos

    def _streams(self, task: ExtractionTask) -> Streams[PlannedRows]:
        stopping = threading.Event()

        def open_one(video: PlannedRows, stack: ExitStack) -> VideoStream | DecodeError:
            if video.video_id in task.quarantined:
                return DecodeError(task.quarantined[video.video_id])
            return self._open(task, video, stack, stopping)

        return Streams(task.spec.videos, open_one, self._parallel(task), stopping)

    def _open(
        self,
        task: ExtractionTask,
        video: PlannedRows,
        stack: ExitStack,
        stopping: threading.Event,
    ) -> VideoStream | DecodeError:
        views = {name: self._views[name] for name in self._view_by_teacher(task).values()}
        if self._spec.frames_root is not None:
            views[_STORE_VIEW] = store_view(self._spec.geometry)
        try:
            path = stack.enter_context(self._spec.source.open(video.path, video.digest, stopping))
            stream = open_video(path, views, self._decode, block_frames=self._batch_size)
            stack.enter_context(stream).read_ahead()
            return stream
        except DecodeError as error:
            return error

    def _view_by_teacher(self, task: ExtractionTask) -> dict[str, str]:
        """Teacher -> view, for the teachers of this task; the others already have its units."""
        return {record.id: self._view_of[record.id] for record in task.spec.teachers}

    def _extract_video(
        self,
        task: ExtractionTask,
        video: PlannedRows,
        stream: VideoStream | DecodeError,
        sink: Sink,
        limit: KillLimit,
    ) -> Iterator[Note]:
        unanswered = False
        try:
            if isinstance(stream, DecodeError):
                raise stream
            frame_count = task.frame_count_of(video)
            outcome = yield from self._decode_once(task, video, stream, sink, frame_count)
            if self._spec.sampling.mode == "per_video" and outcome.frame_count != frame_count:
                outcome = yield from self._decode_again(
                    task, video, stream.path, sink, outcome.frame_count
                )
            sink.finish(video, outcome)
        except DecodeError as error:
            limit.check(video.video_id, error)
            reason = self._spec.source.reason(video.path, video.digest, error)
            outcome = failed_outcome(video.video_id, reason)
            sink.fail(video, outcome)
        except TargetError as error:
            unanswered = True
            outcome = failed_outcome(video.video_id, error.problem)
            sink.refuse(video, outcome)
        yield Note(video.video_id, outcome=outcome, unanswered=unanswered)

    def _decode_once(
        self,
        task: ExtractionTask,
        video: PlannedRows,
        stream: VideoStream,
        sink: Sink,
        frame_count: int,
        *,
        again: bool = False,
    ) -> Generator[Note, None, VideoOutcome]:
        """Decode one stream, pass its frames on and return the outcome.

        ``frame_count``: frames of the video, exact or probed. ``again``: the video's frames
        have already been counted as progress.
        """
        views = self._view_by_teacher(task)
        batches = FrameBatcher(
            self._spec.sampling, frame_count, self._batch_size, set(views.values())
        )
        submit = partial(self._submit, views=views)
        pending = PendingBatches(sink, video, task.spec.teachers, submit)
        for block in stream:
            if _STORE_VIEW in block.views:
                sink.store_frames(video, block.first_index, block.views[_STORE_VIEW])
            for batch in batches.push(block, stream.time_base):
                pending.push(batch, stream.time_base)
            yield Note(video.video_id, frame_count=0 if again else len(block.pts_N))
        for batch in batches.rest():
            pending.push(batch, stream.time_base)
        pending.drain()
        return _outcome_of(video, stream)

    def _decode_again(
        self, task: ExtractionTask, video: PlannedRows, path: Path, sink: Sink, frame_count: int
    ) -> Generator[Note, None, VideoOutcome]:
        """Compute the rows again, spread over the ``frame_count`` that decoding has found.

        The frame store already has the frames.
        """
        sink.restart(video)
        views = {name: self._views[name] for name in self._view_by_teacher(task).values()}
        with open_video(path, views, self._decode, block_frames=self._batch_size) as stream:
            outcome = yield from self._decode_once(
                task, video, stream, sink, frame_count, again=True
            )
        if outcome.frame_count != frame_count:
            raise DecodeError("each decoding of it gives another number of frames")
        return outcome

    def _submit(self, batch: FrameBatch, views: Mapping[str, str]) -> dict[str, PendingLogits]:
        return {
            name: self._teachers[name].submit(batch.views[view]) for name, view in views.items()
        }


def _outcome_of(video: PlannedRows, stream: VideoStream) -> VideoOutcome:
    summary = stream.summary
    if summary is None:
        raise RuntimeError("a stream has no summary until it is exhausted")
    damage = summary.damage
    return VideoOutcome(
        video_id=video.video_id,
        status="ok",
        frame_count=summary.frame_count,
        width=summary.width,
        height=summary.height,
        duration_seconds=summary.duration_seconds,
        decoder_errors=summary.decoder_errors,
        damage=None if damage is None else damage.text,
        concealed=damage is not None and damage.concealed,
    )
