"""The writing side of an extraction worker: one thread, in order, a few blocks ahead at most."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.extraction.batches import FrameBatch
from distinit.pipeline.frames.writer import UnitFrameWriter
from distinit.schemas.manifest import VideoOutcome

__all__ = ["Sink"]

_WRITES_IN_FLIGHT = 4  # blocks; bounds the memory between the teachers and the disk


class Sink:
    """Hands rows and pictures to one writing thread, in order, a few blocks ahead at most."""

    def __init__(
        self, writer: GroupWriter, store: UnitFrameWriter | None, pool: ThreadPoolExecutor
    ) -> None:
        self._writer = writer
        self._store = store
        self._pool = pool
        self._pending: deque[Future[None]] = deque()

    def store_frames(self, video: PlannedRows, first_index: int, frames_NHWC: np.ndarray) -> None:
        """Queue the block's small frames for the frame store."""
        if self._store is not None:
            self._submit(
                self._store.append,
                video.video_id,
                video.digest,
                first_index,
                frames_NHWC,
                video.probed_fps,
            )

    def add(
        self,
        video: PlannedRows,
        batch: FrameBatch,
        time_base: str,
        logits: Mapping[str, np.ndarray],
    ) -> None:
        """Queue one batch's rows for the cache."""
        self._submit(
            self._writer.add, video, batch.index_N, batch.pts_N, time_base, batch.hash_N, logits
        )

    def restart(self, video: PlannedRows) -> None:
        """Queue the removal of a video's rows: they come once more. Its pictures stay."""
        self._submit(self._writer.restart_video, video)

    def finish(self, video: PlannedRows, outcome: VideoOutcome) -> None:
        """Queue the end of a video that was decoded."""
        self._submit(self._decide, self._writer.finish_video, video, outcome)

    def fail(self, video: PlannedRows, outcome: VideoOutcome) -> None:
        """Queue the removal of everything that a failed video has left."""
        self._submit(self._decide, self._writer.fail_video, video, outcome)

    def refuse(self, video: PlannedRows, outcome: VideoOutcome) -> None:
        """As ``fail``, of a video that a teacher has no usable answer for."""
        self._submit(self._decide, self._writer.refuse_video, video, outcome)

    def _decide(
        self,
        decide: Callable[[VideoOutcome], VideoOutcome],
        video: PlannedRows,
        outcome: VideoOutcome,
    ) -> None:
        recorded = decide(outcome)
        if self._store is None:
            return
        if recorded.status == "ok":
            if recorded.damage:
                self._store.note_damage(video.video_id, video.digest, recorded.damage)
        elif recorded.status == "failed":
            self._store.fail_video(video.video_id, video.digest, recorded.error or "")
        else:  # spilled: its frames come again with a later unit
            self._store.discard_video(video.video_id)

    def drain(self) -> None:
        """Wait for the writing thread; raises what it met."""
        while self._pending:
            self._pending.popleft().result()

    def _submit(self, call: Any, *args: Any) -> None:
        while len(self._pending) >= _WRITES_IN_FLIGHT:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(call, *args))
