"""Queues the writes of an extraction worker for one background thread."""

from __future__ import annotations

from collections import Counter, deque
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

_WRITES_IN_FLIGHT = 4  # bounds the memory of blocks that wait to be written


class Sink:
    """Queues writes to the cache and the frame store; one thread does them in order.

    Every method waits while the queue is full, and raises what earlier writes raised.
    """

    def __init__(
        self, writer: GroupWriter, store: UnitFrameWriter | None, pool: ThreadPoolExecutor
    ) -> None:
        self._writer = writer
        self._store = store
        self._pool = pool
        self._pending: deque[Future[None]] = deque()
        self._rows: Counter[str] = Counter()  # by video id
        self._dropped: set[str] = set()  # videos whose frames are no longer stored

    def store_frames(self, video: PlannedRows, first_index: int, frames_NHWC: np.ndarray) -> None:
        """Queue the resized frames of a block for the frame store."""
        if self._store is not None and video.video_id not in self._dropped:
            self._submit(
                self._store.append,
                video.video_id,
                video.digest,
                first_index,
                frames_NHWC,
                video.video.probe.fps,
            )

    def has_room(self, video: PlannedRows, rows: int) -> bool:
        """Whether the next ``rows`` rows of a video fit into its reserved rows.

        If they do, run the teachers and call ``add``. If not, the video has spilled: its rows and
        frames are dropped, and this and later calls only count its rows.
        """
        self._rows[video.video_id] += rows
        if self._rows[video.video_id] <= video.reserved_rows:
            return True
        self._submit(self._writer.overflow, video, rows)
        if self._store is not None and video.video_id not in self._dropped:
            self._dropped.add(video.video_id)
            self._submit(self._store.discard_video, video.video_id)
        return False

    def add(
        self,
        video: PlannedRows,
        batch: FrameBatch,
        time_base: str,
        logits: Mapping[str, np.ndarray],
    ) -> None:
        """Queue the rows of one batch for the cache; ``logits`` by teacher, [N, C]."""
        self._submit(
            self._writer.add, video, batch.index_N, batch.pts_N, time_base, batch.hash_N, logits
        )

    def restart(self, video: PlannedRows) -> None:
        """Queue the removal of a video's rows, to be added again. Stored frames are kept."""
        self._rows.pop(video.video_id, None)
        self._submit(self._writer.restart_video, video)

    def finish(self, video: PlannedRows, outcome: VideoOutcome) -> None:
        """Queue the outcome of a decoded video."""
        self._submit(self._decide, self._writer.finish_video, video, outcome)

    def fail(self, video: PlannedRows, outcome: VideoOutcome) -> None:
        """Queue the removal of all rows and frames of a failed video."""
        self._submit(self._decide, self._writer.fail_video, video, outcome)

    def refuse(self, video: PlannedRows, outcome: VideoOutcome) -> None:
        """As ``fail``, for a video without a usable output of some teacher."""
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
            if video.video_id in self._dropped:
                raise RuntimeError("frames of a video with stored rows must not be dropped")
            if recorded.damage:
                self._store.note_damage(video.video_id, video.digest, recorded.damage)
        elif recorded.status == "failed":
            self._store.fail_video(video.video_id, video.digest, recorded.error or "")
        else:  # spilled: its frames are stored with a later unit
            self._store.discard_video(video.video_id)

    def drain(self) -> None:
        """Wait until everything is written; raises what the writes raised."""
        while self._pending:
            self._pending.popleft().result()

    def _submit(self, call: Any, *args: Any) -> None:
        while len(self._pending) >= _WRITES_IN_FLIGHT:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(call, *args))
