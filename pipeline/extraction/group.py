"""One unit group in progress: its writers, and how far each of its videos is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from distinit.pipeline.cache.fence import behind_fence
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.extraction.ordered_frames import OrderedFrames, WaitingRoom
from distinit.pipeline.extraction.sink import Sink
from distinit.pipeline.extraction.task import ExtractionTask, Note, WorkerSpec
from distinit.pipeline.frames.writer import FrameStoreWriter, UnitFrameWriter
from distinit.schemas.manifest import UnitCommit

__all__ = ["GroupInProgress", "VideoInProgress"]


class GroupInProgress:
    """Opens the cache and the frame store for one task; ``close`` drops what is not committed.

    ``videos``: those to decode, in the order in which they are started. ``held_notes``: its
    progress, as long as the driver has not yet assigned the task.
    """

    def __init__(
        self,
        task: ExtractionTask,
        spec: WorkerSpec,
        encoders: ThreadPoolExecutor,
        room: WaitingRoom,
        on_error: Callable[[BaseException], None],
    ) -> None:
        """``encoders``: threads in which logits are encoded. ``on_error``: as for Sink."""
        self.task = task
        self.held_notes: list[Note] = []
        self.ended_count = 0
        self._stack = ExitStack()
        try:
            self._writer = self._stack.enter_context(GroupWriter(task.spec))
            self._store = _open_store(spec, task.spec.group.first_unit)
            self.frames: OrderedFrames | None = None
            if self._store is not None:
                self._stack.callback(self._store.abort)  # does nothing once committed
                self.frames = OrderedFrames(self._store, task.spec.videos, room)
            self._pool = self._stack.enter_context(ThreadPoolExecutor(1, "write"))
        except BaseException:
            self._stack.close()
            raise
        self.sink = Sink(self._writer, self.frames, self._pool, encoders, on_error)
        self.videos = [
            VideoInProgress(self, position, video, task.frame_count_of(video))
            for position, video in enumerate(task.spec.videos)
        ]

    @property
    def has_ended(self) -> bool:
        """Whether every video is finished or failed."""
        return self.unended_count == 0

    @property
    def unended_count(self) -> int:
        """Number of videos that are neither finished nor failed."""
        return len(self.videos) - self.ended_count

    def commit_in_background(
        self, done: Callable[[tuple[UnitCommit, ...] | BaseException], None]
    ) -> None:
        """Write everything after what is queued, then call ``done`` with the commits or an error.

        The caller meanwhile serves the next group, so that the teachers never wait for the disk.
        """

        self._pool.submit(lambda: done(self._commit_or_error()))

    def _commit_or_error(self) -> tuple[UnitCommit, ...] | BaseException:
        try:
            return self._commit()
        except BaseException as error:
            return error

    def _commit(self) -> tuple[UnitCommit, ...]:
        self.sink.drain()
        if self._store is not None:
            spec = self.task.spec
            with behind_fence(CacheLayout(spec.root).fence, spec.fence):
                self._store.commit()
        return self._writer.commit()

    def stop(self) -> None:
        """Let the threads that decode the videos of this group end."""
        if self.frames is not None:
            self.frames.stop()

    def abandon(self) -> None:
        """Let its videos end soon: another worker has got the task. Not once it is committed."""
        for video in self.videos:
            video.abandoned.set()
        if self.frames is not None:
            self.frames.abandon()

    def close(self) -> None:
        """Drop what is not committed. The threads that decode its videos must have ended."""
        self._stack.close()
        self.videos.clear()  # they refer to this group


@dataclass(slots=True, eq=False)
class VideoInProgress:
    """One video of a group, from the moment it is due.

    ``frame_count``: its frames, exact or probed. ``refusal``: why a teacher's output for it cannot
    be stored. ``abandoned``: set when its remaining frames are no longer needed.
    """

    group: GroupInProgress
    position: int
    video: PlannedRows
    frame_count: int
    refusal: str = ""
    abandoned: threading.Event = field(default_factory=threading.Event)

    def note(self, frame_count: int = 0) -> Note:
        """A note about its progress."""
        return Note(self.video.video_id, self.video.path, frame_count=frame_count)


def _open_store(spec: WorkerSpec, unit: int) -> UnitFrameWriter | None:
    """The frame file of a unit; None without a frame store or if it is already committed."""
    if spec.frames_root is None:
        return None
    store = FrameStoreWriter(spec.frames_root, spec.geometry, spec.plan_digest)
    if unit in store.committed_units():
        return None
    return store.open_unit(unit)
