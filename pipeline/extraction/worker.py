"""One extraction worker: decode, forward, encode and write the units of one task.

Three things run at once: ffmpeg processes decode the current and the next videos, this
thread runs the teachers, and one writing thread encodes JPEGs and logits.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from distinit.pipeline.cache.fence import behind_fence
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.cache.task import TaskSpec, TaskWriter
from distinit.pipeline.extraction.batches import Batch, Batcher
from distinit.pipeline.extraction.sink import Sink
from distinit.pipeline.frames.build import store_view
from distinit.pipeline.frames.writer import FrameStoreWriter, UnitFrameWriter
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.video.decode import VideoStream, open_video
from distinit.schemas.errors import DecodeError, DecodeKilledError
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.manifest import UnitCommit, VideoOutcome
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["ExtractionTask", "ExtractionWorker", "Note", "WorkerSpec"]

_STORE_VIEW = "store"
_DECODE_TRIES = 3  # of one video whose ffmpeg is killed from outside; then it is called failed


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker needs to know; picklable."""

    corpus_root: Path
    frames_root: Path | None
    plan_digest: str
    geometry: FrameGeometry
    sampling: SamplingConfig
    decode: DecodeConfig
    batch_size: int


@dataclass(frozen=True, slots=True)
class ExtractionTask:
    """Units to fill, and the videos among them that are known to kill workers."""

    spec: TaskSpec
    quarantined: Mapping[str, str] = field(default_factory=dict)
    deaths: tuple[str, ...] = ()  # ids of the videos under way when a worker died

    def path_of(self, video_id: str) -> str:
        """Path, relative to the corpus, of one of the task's videos."""
        return next(v.path for v in self.spec.task.videos if v.video_id == video_id)


@dataclass(frozen=True, slots=True)
class Note:
    """Progress: ``frames`` more rows of ``video_id``; ``outcome`` when it is through."""

    video_id: str
    frames: int = 0
    outcome: VideoOutcome | None = None


class ExtractionWorker:
    """Holds the teachers; fills one task's units after another."""

    def __init__(self, spec: WorkerSpec, teachers: Mapping[str, Teacher]) -> None:
        """``teachers`` by id, on their device."""
        self._spec = spec
        self._teachers = teachers
        # Teachers that want the same picture share it: it leaves ffmpeg once.
        distinct = list(dict.fromkeys(teacher.view for teacher in teachers.values()))
        self._views = {f"view{i}": view for i, view in enumerate(distinct)}
        self._view_of = {
            name: f"view{distinct.index(teacher.view)}" for name, teacher in teachers.items()
        }

    def run(self, task: ExtractionTask) -> Generator[Note, None, tuple[UnitCommit, ...]]:
        """Extract and commit every video of ``task``.

        A video that cannot be decoded is recorded as failed; when something outside killed its
        ffmpeg, the task begins afresh first. Raises StorageError when the disk refuses and
        CacheMismatchError when a frame is not the one that the cache knows.
        """
        killed: Counter[str] = Counter()
        while True:
            with suppress(DecodeKilledError):
                return (yield from self._attempt(task, killed))

    def _attempt(
        self, task: ExtractionTask, killed: Counter[str]
    ) -> Generator[Note, None, tuple[UnitCommit, ...]]:
        with ExitStack() as stack:
            writer = stack.enter_context(TaskWriter(task.spec))
            store = self._open_store(task.spec.task.first_unit)
            if store is not None:
                stack.callback(store.abort)  # does nothing once committed
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=1))
            sink = Sink(writer, store, pool)
            for video, stream in stack.enter_context(self._streams(task)):
                yield Note(video.video_id)
                yield from self._extract_video(video, stream, sink, killed)
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

    @contextmanager
    def _streams(
        self, task: ExtractionTask
    ) -> Iterator[Iterator[tuple[PlannedRows, VideoStream | DecodeError]]]:
        """Videos in plan order; the next ones are decoding already. Closes what it opened."""
        waiting: deque[tuple[PlannedRows, VideoStream | DecodeError]] = deque()

        def videos() -> Iterator[tuple[PlannedRows, VideoStream | DecodeError]]:
            rest = iter(task.spec.videos)
            while True:
                while len(waiting) < self._spec.decode.parallel_videos:
                    video = next(rest, None)
                    if video is None:
                        break
                    waiting.append((video, self._open(video, task.quarantined)))
                if not waiting:
                    return
                yield waiting[0]
                _close(waiting.popleft()[1])

        try:
            yield videos()
        finally:
            for _, stream in waiting:
                _close(stream)

    def _open(
        self, video: PlannedRows, quarantined: Mapping[str, str]
    ) -> VideoStream | DecodeError:
        if video.video_id in quarantined:
            return DecodeError(quarantined[video.video_id])
        views = dict(self._views)
        if self._spec.frames_root is not None:
            views[_STORE_VIEW] = store_view(self._spec.geometry)
        try:
            stream = open_video(
                self._spec.corpus_root / video.path,
                views,
                self._spec.decode,
                block_frames=self._spec.batch_size,
            )
            return stream.__enter__()  # closed by _streams
        except DecodeError as error:
            return error

    def _extract_video(
        self,
        video: PlannedRows,
        stream: VideoStream | DecodeError,
        sink: Sink,
        killed: Counter[str],
    ) -> Iterator[Note]:
        batches = Batcher(
            self._spec.sampling, video, self._spec.batch_size, set(self._view_of.values())
        )
        try:
            if isinstance(stream, DecodeError):
                raise stream
            for block in stream:
                if _STORE_VIEW in block.views:
                    sink.store_frames(video, block.first_index, block.views[_STORE_VIEW])
                for batch in batches.push(block):
                    self._forward(video, batch, stream, sink)
                yield Note(video.video_id, frames=len(block.pts_N))
            for batch in batches.rest():
                self._forward(video, batch, stream, sink)
            outcome = _decoded(video, stream)
            sink.finish(video, outcome)
        except DecodeError as error:
            if isinstance(error, DecodeKilledError):
                killed[video.video_id] += 1
                if killed[video.video_id] < _DECODE_TRIES:
                    raise
            outcome = _failed(video, error)
            sink.fail(video, outcome)
        yield Note(video.video_id, outcome=outcome)

    def _forward(self, video: PlannedRows, batch: Batch, stream: VideoStream, sink: Sink) -> None:
        logits = {
            name: teacher.forward(batch.views[self._view_of[name]])
            for name, teacher in self._teachers.items()
        }
        sink.add(video, batch, stream.time_base, logits)


def _close(stream: VideoStream | DecodeError) -> None:
    if not isinstance(stream, DecodeError):
        stream.close()


def _decoded(video: PlannedRows, stream: VideoStream) -> VideoOutcome:
    summary = stream.summary
    if summary is None:
        raise RuntimeError("a stream without a summary is not exhausted")
    return VideoOutcome(
        video_id=video.video_id,
        status="ok",
        frame_count=summary.frame_count,
        width=summary.width,
        height=summary.height,
        duration_seconds=summary.duration_seconds,
    )


def _failed(video: PlannedRows, error: DecodeError) -> VideoOutcome:
    return VideoOutcome(
        video_id=video.video_id,
        status="failed",
        frame_count=0,
        width=0,
        height=0,
        duration_seconds=0.0,
        error=error.problem.removeprefix(f"{Path(video.path).name}: "),
    )
