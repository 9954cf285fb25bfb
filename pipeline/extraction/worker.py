"""One extraction worker: decode, forward, encode and write the units of one task.

Four things run at once: ffmpeg processes decode the current and the next videos, this thread
collects their frames into batches, the teachers' threads or their GPU answer the batch before, and
one writing thread encodes JPEGs and logits.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from distinit.pipeline.cache.fence import behind_fence
from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.corpus.source import VideoSource
from distinit.pipeline.extraction.answers import Answers
from distinit.pipeline.extraction.batches import FrameBatch, FrameBatcher
from distinit.pipeline.extraction.sink import Sink
from distinit.pipeline.extraction.streams import Streams
from distinit.pipeline.frames.fill import store_view
from distinit.pipeline.frames.writer import FrameStoreWriter, UnitFrameWriter
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.teachers.forward import CPU_BATCH, PendingLogits
from distinit.pipeline.video.decode import VideoStream, open_video, usable_decode
from distinit.schemas.errors import DecodeError, DecodeKilledError, TargetError
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.manifest import UnitCommit, VideoOutcome, failed_outcome
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["ExtractionTask", "ExtractionWorker", "Note", "WorkerSpec"]

_STORE_VIEW = "store"
_NOTE_SECONDS = 0.2  # for the name of a suspect to leave this process before it is opened
_DECODE_TRIES = 3  # of one video whose ffmpeg is killed from outside; then it is called failed


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker needs to know; picklable."""

    source: VideoSource
    frames_root: Path | None
    plan_digest: str
    geometry: FrameGeometry
    sampling: SamplingConfig
    decode: DecodeConfig


@dataclass(frozen=True, slots=True)
class ExtractionTask:
    """Units to fill, and the videos among them that are known to kill workers."""

    spec: GroupSpec
    quarantined: Mapping[str, str] = field(default_factory=dict)
    deaths: tuple[str, ...] = ()  # ids of the videos under way when a worker died

    def path_of(self, video_id: str) -> str:
        """Path, relative to the corpus, of one of the task's videos."""
        return next(v.path for v in self.spec.group.videos if v.video_id == video_id)

    def frames_of(self, video: PlannedRows) -> int:
        """Frames of one of the task's videos: as counted by another teacher's pass, or probed."""
        known = (o.frame_count for o in self.spec.known if o.video_id == video.video_id)
        return next(known, video.probed_frames)


@dataclass(frozen=True, slots=True)
class Note:
    """Progress: ``frames`` more rows of ``video_id``; ``outcome`` when it is through.

    ``message``: something to tell people, which concerns no video; then ``video_id`` is empty.
    ``unanswered``: it failed because a teacher has no usable answer for it.
    """

    video_id: str
    frames: int = 0
    outcome: VideoOutcome | None = None
    message: str = ""
    unanswered: bool = False


class ExtractionWorker:
    """Holds the teachers; fills one task's units after another. ``close`` it after the last."""

    def __init__(self, spec: WorkerSpec, teachers: Mapping[str, Teacher]) -> None:
        """``teachers`` by id, on their device."""
        self._spec = spec
        self._decode, self._warning = usable_decode(spec.decode)
        self._opened_ahead: tuple[ExtractionTask, Streams[PlannedRows]] | None = None
        self._teachers = teachers
        # Teachers that want the same picture share it: it leaves ffmpeg once.
        distinct = list(dict.fromkeys(teacher.view for teacher in teachers.values()))
        self._batch_size = max((t.batch_size for t in teachers.values()), default=CPU_BATCH)
        self._views = {f"view{i}": view for i, view in enumerate(distinct)}
        self._view_of = {
            name: f"view{distinct.index(teacher.view)}" for name, teacher in teachers.items()
        }

    def run(
        self, task: ExtractionTask, after: ExtractionTask | None
    ) -> Generator[Note, None, tuple[UnitCommit, ...]]:
        """Extract and commit every video of ``task``; the first of ``after`` begins to decode.

        A video that cannot be decoded, or that a teacher has no usable answer for, is recorded as
        failed; when something outside killed its ffmpeg, the task begins afresh first. Raises
        StorageError when the disk refuses and CacheMismatchError when a frame is not the one that
        the cache knows.
        """
        if self._warning:
            yield Note("", message=self._warning)
            self._warning = ""
        killed: Counter[str] = Counter()
        while True:
            with suppress(DecodeKilledError):
                return (yield from self._attempt(task, after, killed))
            self.close()  # what waits for the next task may hold what this one needs again

    def close(self) -> None:
        """Give up what was opened for a task that does not come."""
        if self._opened_ahead is not None:
            self._opened_ahead[1].close()
            self._opened_ahead = None

    def _attempt(
        self, task: ExtractionTask, after: ExtractionTask | None, killed: Counter[str]
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
                    self._open_ahead(task, after)
                yield from self._extract_video(task, video, stream, sink, killed)
            sink.drain()
            if store is not None:
                with behind_fence(CacheLayout(task.spec.root).fence, task.spec.fence):
                    store.commit()
            return writer.commit()

    def _open_store(self, unit: int) -> UnitFrameWriter | None:
        """The frame file of this task; None if none is wanted or it is there already."""
        if self._spec.frames_root is None:
            return None
        store = FrameStoreWriter(
            self._spec.frames_root, self._spec.geometry, self._spec.plan_digest
        )
        if unit in store.committed_units():
            return None
        return store.open_unit(unit)

    def _open_ahead(self, task: ExtractionTask, after: ExtractionTask | None) -> None:
        """Begin with ``after``, so that its decoder does not start from nothing."""
        if after is None or self._opened_ahead is not None:
            return
        if self._parallel(task) > 1 and self._parallel(after) > 1:
            streams = self._streams(after)
            streams.begin()
            self._opened_ahead = after, streams

    def _take_streams(self, task: ExtractionTask) -> Streams[PlannedRows]:
        """Those that were opened ahead, if they are for this task."""
        if self._opened_ahead is not None and self._opened_ahead[0] == task:
            streams = self._opened_ahead[1]
            self._opened_ahead = None
            return streams
        self.close()
        return self._streams(task)

    def _parallel(self, task: ExtractionTask) -> int:
        """After a death one video at a time, so that the next one has a single suspect."""
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
        views = {name: self._views[name] for name in self._views_of(task).values()}
        if self._spec.frames_root is not None:
            views[_STORE_VIEW] = store_view(self._spec.geometry)
        try:
            path = stack.enter_context(self._spec.source.open(video.path, video.digest, stopping))
            stream = open_video(path, views, self._decode, block_frames=self._batch_size)
            stack.enter_context(stream).read_ahead()
            return stream
        except DecodeError as error:
            return error

    def _views_of(self, task: ExtractionTask) -> dict[str, str]:
        """Teacher -> view, of the teachers that this task is for: others have its units already."""
        return {record.id: self._view_of[record.id] for record in task.spec.teachers}

    def _extract_video(
        self,
        task: ExtractionTask,
        video: PlannedRows,
        stream: VideoStream | DecodeError,
        sink: Sink,
        killed: Counter[str],
    ) -> Iterator[Note]:
        unanswered = False
        try:
            if isinstance(stream, DecodeError):
                raise stream
            frames = task.frames_of(video)
            outcome = yield from self._decode_once(task, video, stream, sink, frames)
            if self._spec.sampling.mode == "per_video" and outcome.frame_count != frames:
                outcome = yield from self._decode_again(
                    task, video, stream.path, sink, outcome.frame_count
                )
            sink.finish(video, outcome)
        except DecodeError as error:
            if isinstance(error, DecodeKilledError):
                killed[video.video_id] += 1
                if killed[video.video_id] < _DECODE_TRIES:
                    raise
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
        frames: int,
        *,
        again: bool = False,
    ) -> Generator[Note, None, VideoOutcome]:
        """Rows and pictures of one stream; ``frames``: how many it has, as far as is known.

        ``again``: its frames are counted already.
        """
        views = self._views_of(task)
        batches = FrameBatcher(self._spec.sampling, frames, self._batch_size, set(views.values()))
        answers = Answers(sink, video, task.spec.teachers)
        for block in stream:
            if _STORE_VIEW in block.views:
                sink.store_frames(video, block.first_index, block.views[_STORE_VIEW])
            for batch in batches.push(block, stream.time_base):
                answers.add(batch, stream.time_base, self._submit(batch, views))
            yield Note(video.video_id, frames=0 if again else len(block.pts_N))
        for batch in batches.rest():
            answers.add(batch, stream.time_base, self._submit(batch, views))
        answers.drain()
        return _decoded(video, stream)

    def _decode_again(
        self, task: ExtractionTask, video: PlannedRows, path: Path, sink: Sink, frames: int
    ) -> Generator[Note, None, VideoOutcome]:
        """The rows once more, spread over the ``frames`` that came and not those announced.

        The pictures are stored already.
        """
        sink.restart(video)
        views = {name: self._views[name] for name in self._views_of(task).values()}
        with open_video(path, views, self._decode, block_frames=self._batch_size) as stream:
            outcome = yield from self._decode_once(task, video, stream, sink, frames, again=True)
        if outcome.frame_count != frames:
            raise DecodeError("each decoding of it gives another number of frames")
        return outcome

    def _submit(self, batch: FrameBatch, views: Mapping[str, str]) -> dict[str, PendingLogits]:
        return {
            name: self._teachers[name].submit(batch.views[view]) for name, view in views.items()
        }


def _decoded(video: PlannedRows, stream: VideoStream) -> VideoOutcome:
    summary = stream.summary
    if summary is None:
        raise RuntimeError("a stream without a summary is not exhausted")
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
