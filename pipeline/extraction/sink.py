"""Queues the writes of one unit group for one background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.cache.target_rows import precision_loss
from distinit.pipeline.cache.unit import FrameRows
from distinit.pipeline.extraction.batches import FrameBatch
from distinit.pipeline.extraction.ordered_frames import OrderedFrames
from distinit.pipeline.frames.writer import UnitFrameWriter
from distinit.schemas.manifest import VideoOutcome

__all__ = ["Sink"]

_WRITES_IN_FLIGHT = 32  # bounds the memory of logits that wait to be written


class Sink:
    """Queues writes to the cache, and what becomes of each video; one thread does them in order.

    Several threads encode the logits before.

    Every method waits while the queue is full, and raises what earlier writes raised.
    """

    def __init__(
        self,
        writer: GroupWriter,
        frames: OrderedFrames | None,
        pool: ThreadPoolExecutor,
        encoders: ThreadPoolExecutor,
        on_error: Callable[[BaseException], None],
    ) -> None:
        """Write nothing yet.

        ``pool``: of one thread. ``frames``: None without a frame store. ``on_error`` is called, in
        another thread, as soon as a write has failed: whoever waits must not wait any longer.
        """
        self._writer = writer
        self._frames = frames
        self._pool = pool
        self._encoders = encoders
        self._on_error = on_error
        self._position = {v.video_id: at for at, v in enumerate(writer.spec.videos)}
        self._pending: deque[Future[None]] = deque()

    def add(
        self,
        video: PlannedRows,
        batch: FrameBatch,
        time_base: str,
        logits: Mapping[str, np.ndarray],
    ) -> None:
        """Queue the rows of one batch for the cache; ``logits`` by teacher, [N, C]."""
        rows = FrameRows.of(video.video_id, time_base, batch.index_N, batch.pts_N, batch.hash_N)
        encoding = self._encoders.submit(self._writer.encode, rows, logits)
        self._submit(lambda: self._writer.add_encoded(video, rows, encoding.result()))

    def note_precision_loss(
        self,
        video: PlannedRows,
        exact: Mapping[str, np.ndarray],
        logits: Mapping[str, np.ndarray],
    ) -> None:
        """Queue what the arithmetic of the teachers changed; ``exact``: some logits in fp32."""
        if exact:
            records = {record.id: record for record in self._writer.spec.teachers}
            sums = {
                name: precision_loss(values, logits[name], records[name])
                for name, values in exact.items()
                if np.isfinite(values).all()
            }
            self._submit(self._writer.note_precision_loss, video, sums)

    def overflow(self, video: PlannedRows, rows: int) -> None:
        """Queue that ``rows`` more rows do not fit into those reserved for a video."""
        self._submit(self._writer.overflow, video, rows)

    def restart(self, video: PlannedRows) -> None:
        """Queue the removal of a video's rows, to be added again. Stored frames are kept."""
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
        if self._frames is None:
            return
        position = self._position[video.video_id]
        if recorded.status == "ok" and self._frames.is_dropped(position):
            raise RuntimeError("frames of a video with stored rows must not be dropped")
        self._frames.finish(position, partial(_record, video, recorded))

    def drain(self) -> None:
        """Wait until everything is written; raises what the writes raised."""
        while self._pending:
            self._pending.popleft().result()

    def _submit(self, call: Any, *args: Any) -> None:
        while len(self._pending) >= _WRITES_IN_FLIGHT:
            self._pending.popleft().result()
        write = self._pool.submit(call, *args)
        write.add_done_callback(self._report_error)
        self._pending.append(write)

    def _report_error(self, write: Future[None]) -> None:
        if not write.cancelled() and (error := write.exception()) is not None:
            self._on_error(error)


def _record(video: PlannedRows, outcome: VideoOutcome, store: UnitFrameWriter) -> None:
    """Record in the frame store how a video ended."""
    if outcome.status == "failed":
        store.fail_video(video.video_id, video.digest, outcome.error or "")
    elif outcome.status == "spilled":  # its frames are stored with a later unit
        store.discard_video(video.video_id)
    elif outcome.damage:
        store.note_damage(video.video_id, video.digest, outcome.damage)
