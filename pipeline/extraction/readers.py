"""Threads that decode videos and submit their frames to the teachers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.extraction.batches import FrameBatch, FrameBatcher
from distinit.pipeline.extraction.group import GroupInProgress, VideoInProgress
from distinit.pipeline.extraction.in_flight import InFlight, StoppedError
from distinit.pipeline.extraction.short_videos import ShortVideos
from distinit.pipeline.extraction.task import ExtractionTask, WorkerSpec
from distinit.pipeline.extraction.worker_teachers import WorkerTeachers
from distinit.pipeline.frames.fill import store_view
from distinit.pipeline.teachers.forward import PendingLogits
from distinit.pipeline.video.decode import FrameBlock, VideoStream, open_video
from distinit.pipeline.video.short import DecodedVideo, ShortDecode
from distinit.pipeline.video.views import View
from distinit.schemas.errors import DecodeError
from distinit.schemas.manifest import UnitCommit, VideoOutcome
from distinit.schemas.video import DecodeConfig

__all__ = [
    "Committed",
    "Decoded",
    "Ended",
    "Event",
    "Overflowed",
    "Restarted",
    "Submitted",
    "VideoReaders",
    "WriteFailed",
]

_STORE_VIEW = "store"


@dataclass(frozen=True, slots=True)
class Decoded:
    """``frame_count`` more frames of a video were decoded; 0: its decoding begins."""

    video: VideoInProgress
    frame_count: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """The teachers compute a batch, which holds ``byte_count`` bytes of pixels until then.

    ``exact``: the same logits in fp32, for the first batch of a group, from teachers that compute
    in another precision.
    """

    video: VideoInProgress
    batch: FrameBatch
    time_base: str
    pending: Mapping[str, PendingLogits]
    exact: Mapping[str, PendingLogits]
    byte_count: int


@dataclass(frozen=True, slots=True)
class Overflowed:
    """``rows`` more rows do not fit into those that the plan reserved for a video."""

    video: VideoInProgress
    rows: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """All rows of a video follow once more."""

    video: VideoInProgress


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes of a video. None: it was abandoned."""

    video: VideoInProgress
    result: VideoOutcome | BaseException | None


@dataclass(frozen=True, slots=True)
class Committed:
    """A group was committed, or could not be."""

    group: GroupInProgress
    result: tuple[UnitCommit, ...] | BaseException


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """The cache or the frame store cannot be written."""

    error: BaseException


type Event = Decoded | Submitted | Overflowed | Restarted | Ended | Committed | WriteFailed


class VideoReaders:
    """Decodes ``spec.parallel_videos`` videos at a time, in the order in which they are started.

    Everything that happens to a video is put into ``events``, in order; events of several videos
    are mixed. ``close`` ends all threads and every ffmpeg.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        decode: DecodeConfig,
        teachers: WorkerTeachers,
        events: InFlight[Event],
    ) -> None:
        """``decode``: that of ``spec``, or what this machine can do instead."""
        self._spec = spec
        self._decode = decode
        self._teachers = teachers
        self._events = events
        self._stopping = threading.Event()
        self._readers = ThreadPoolExecutor(spec.parallel_videos, "read-video")
        # One thread, so that a video waiting for room in the spool never waits for a later one.
        self._opener = ThreadPoolExecutor(1, "open-video")
        self._short = ShortVideos(spec, decode)
        self._enders: set[Callable[[], None]] = set()  # of every ffmpeg that is running
        self._lock = threading.Lock()  # of _enders

    def start(self, videos: Sequence[VideoInProgress]) -> None:
        """Decode ``videos``, of one group, once threads are free."""
        for run in self._short.runs(videos):
            if len(run) > 1:
                self._readers.submit(self._read_together, run)
            else:
                self._readers.submit(self._read, run[0])

    def close(self) -> None:
        """End all threads. What they have not yet put is lost."""
        self._events.stop()
        self._stopping.set()
        with self._lock:
            enders = list(self._enders)
        for end in enders:
            end()
        self._readers.shutdown(cancel_futures=True)
        self._opener.shutdown(cancel_futures=True)

    def _read(self, video: VideoInProgress, decoded: DecodedVideo | None = None) -> None:
        """Read one video, which may be ``decoded`` already, to its end."""
        self._events.put_unless_stopped(Ended(video, self._result_or_error(video, decoded)))

    def _read_together(self, videos: Sequence[VideoInProgress]) -> None:
        """Read short videos of one group, decoded by one ffmpeg where that is possible."""
        decoded: Sequence[DecodedVideo | None] = [None] * len(videos)
        if self._short.may_share(videos):
            for video in videos:  # told before anything can happen
                self._events.put_unless_stopped(Decoded(video, 0))
            # Where this goes wrong, decoding each alone gives the reason.
            with suppress(Exception):
                decoded = self._decode_together(videos) or decoded
            self._short.note(decoded)
        for video, found in zip(videos, decoded, strict=True):
            self._read(video, found)

    def _decode_together(
        self, videos: Sequence[VideoInProgress]
    ) -> Sequence[DecodedVideo | None] | None:
        root, views = self._spec.source.root, self._views(videos[0].group.task)
        paths = [root / video.video.path for video in videos]
        frames = self._teachers.block_frames
        with (
            ShortDecode(paths, views, self._decode, frames) as short,
            self._ended_on_close(short.stop),
        ):
            return short.read()

    def _result_or_error(
        self, video: VideoInProgress, decoded: DecodedVideo | None
    ) -> VideoOutcome | BaseException | None:
        if video.abandoned.is_set():
            return None
        try:
            self._events.put(Decoded(video, 0))
            return self._read_video(video, decoded)
        except BaseException as error:
            return error  # it is raised by the thread that takes it

    def _read_video(
        self, video: VideoInProgress, decoded: DecodedVideo | None
    ) -> VideoOutcome | None:
        task, planned = video.group.task, video.video
        if planned.video_id in task.quarantined:
            raise DecodeError(task.quarantined[planned.video_id])
        with ExitStack() as stack:
            path = self._open(planned, stack).result()
            try:
                return self._read_all(video, path, decoded)
            finally:  # after an error too: a change explains it
                self._spec.source.check_unchanged(planned.video.file)

    def _read_all(
        self, video: VideoInProgress, path: Path, decoded: DecodedVideo | None
    ) -> VideoOutcome | None:
        if decoded is None:
            outcome = self._read_once(video, path, video.frame_count)
        else:
            outcome = self._read_stream(video, decoded, video.frame_count)
        if outcome is None or self._spec.sampling.mode != "per_video":
            return outcome
        if outcome.frame_count != video.frame_count:
            self._events.put(Restarted(video))
            return self._read_again(video, path, outcome.frame_count)
        return outcome

    def _open(self, planned: PlannedRows, stack: ExitStack) -> Future[Path]:
        """Make a local file of a video, which may have to be downloaded."""
        opened = self._spec.source.open(planned.path, planned.digest, self._stopping)
        return self._opener.submit(stack.enter_context, opened)

    def _read_again(
        self, video: VideoInProgress, path: Path, frame_count: int
    ) -> VideoOutcome | None:
        """Compute the rows again, spread over the ``frame_count`` that decoding has found."""
        outcome = self._read_once(video, path, frame_count, again=True)
        if outcome is not None and outcome.frame_count != frame_count:
            raise DecodeError("each decoding of it gives another number of frames")
        return outcome

    def _read_once(
        self, video: VideoInProgress, path: Path, frame_count: int, *, again: bool = False
    ) -> VideoOutcome | None:
        """Decode a video to its end; None if it was abandoned.

        ``again``: its frames are stored and counted already; only its rows are needed.
        """
        with self._open_stream(path, video.group.task, stored=not again) as stream:
            return self._read_stream(video, stream, frame_count, again=again)

    def _read_stream(
        self,
        video: VideoInProgress,
        stream: VideoStream | DecodedVideo,
        frame_count: int,
        *,
        again: bool = False,
    ) -> VideoOutcome | None:
        names = set(self._teachers.view_of(video.group.task).values())
        batcher = FrameBatcher(self._spec.sampling, frame_count, self._teachers.block_frames, names)
        rows = _RowCount(video, self._events)
        for block in stream:
            if video.abandoned.is_set():
                return None
            if not again:
                self._pass_on(video, block)
            for batch in batcher.push(block, stream.time_base):
                self._submit(video, batch, stream.time_base, rows)
        for batch in batcher.rest():
            self._submit(video, batch, stream.time_base, rows)
        return _outcome_of(video.video, stream)

    @contextmanager
    def _open_stream(
        self, path: Path, task: ExtractionTask, *, stored: bool
    ) -> Iterator[VideoStream]:
        views, frames = self._views(task, stored=stored), self._teachers.block_frames
        with (
            open_video(path, views, self._decode, block_frames=frames) as stream,
            self._ended_on_close(stream.close),
        ):
            stream.read_ahead()
            yield stream

    def _views(self, task: ExtractionTask, *, stored: bool = True) -> dict[str, View]:
        """The views that the teachers need; ``stored``: and that of the frame store, if any."""
        views = self._teachers.views(task)
        if stored and self._spec.frames_root is not None:
            views[_STORE_VIEW] = store_view(self._spec.geometry)
        return views

    @contextmanager
    def _ended_on_close(self, end: Callable[[], None]) -> Iterator[None]:
        """``close`` calls ``end``."""
        with self._lock:
            if self._stopping.is_set():
                raise StoppedError
            self._enders.add(end)
        try:
            yield
        finally:
            with self._lock:
                self._enders.discard(end)

    def _pass_on(self, video: VideoInProgress, block: FrameBlock) -> None:
        """Store the frames of a block, and count them."""
        frames = video.group.frames
        if frames is not None and not frames.is_dropped(video.position):
            frames.append(video.position, block.first_index, block.views[_STORE_VIEW])
        self._events.put(Decoded(video, len(block)))

    def _submit(
        self, video: VideoInProgress, batch: FrameBatch, time_base: str, rows: _RowCount
    ) -> None:
        if not rows.has_room(len(batch.index_N)):
            return
        byte_count = max((view.nbytes for view in batch.views.values()), default=0)

        def submit() -> Submitted:
            task = video.group.task
            pending = self._teachers.submit(batch, task)
            is_first = video.position == 0 and rows.is_first(len(batch.index_N))
            exact = self._teachers.submit_exact(batch, task) if is_first else {}
            return Submitted(video, batch.without_views(), time_base, pending, exact, byte_count)

        self._events.submit(len(batch.index_N), byte_count, submit)


class _RowCount:
    """Counts the rows of a video; once they exceed its reserved ones, its frames are dropped."""

    def __init__(self, video: VideoInProgress, events: InFlight[Event]) -> None:
        self._video = video
        self._events = events
        self._rows = 0

    def is_first(self, rows: int) -> bool:
        """Whether the ``rows`` that were counted last are the first of the video."""
        return self._rows == rows

    def has_room(self, rows: int) -> bool:
        """Whether the next ``rows`` rows still fit; if not, they are only counted."""
        self._rows += rows
        if self._rows <= self._video.video.reserved_rows:
            return True
        self._events.put(Overflowed(self._video, rows))
        if self._video.group.frames is not None:
            self._video.group.frames.drop(self._video.position)
        return False


def _outcome_of(video: PlannedRows, stream: VideoStream | DecodedVideo) -> VideoOutcome:
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
