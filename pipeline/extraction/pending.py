"""Submits batches to the teachers, and passes their checked logits to the sink in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from distinit.pipeline.cache.encoding import first_unstorable
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.extraction.batches import FrameBatch
from distinit.pipeline.extraction.sink import Sink
from distinit.pipeline.teachers.forward import PendingLogits
from distinit.schemas.errors import TargetError
from distinit.schemas.teacher import TeacherRecord

__all__ = ["PendingBatches", "require_storable"]

_BATCHES_AHEAD = 1  # submitted to the teachers while the previous batch is awaited


class PendingBatches:
    """Batches of one video that were submitted to the teachers and are not yet written.

    They reach the sink in the order in which they were pushed. Every method raises TargetError if
    a teacher output cannot be stored.
    """

    def __init__(
        self,
        sink: Sink,
        video: PlannedRows,
        teachers: Sequence[TeacherRecord],
        submit: Callable[[FrameBatch], dict[str, PendingLogits]],
    ) -> None:
        """``submit`` starts all ``teachers`` on a batch; it returns pending logits by teacher."""
        self._sink = sink
        self._video = video
        self._teachers = teachers
        self._submit = submit
        self._batches: deque[tuple[FrameBatch, str, dict[str, PendingLogits]]] = deque()

    def push(self, batch: FrameBatch, time_base: str) -> None:
        """Submit the next batch, unless the video has spilled; pass earlier ones to the sink."""
        if self._sink.has_room(self._video, len(batch.index_N)):
            self._batches.append((batch, time_base, self._submit(batch)))
        while len(self._batches) > _BATCHES_AHEAD:
            self._pass_on()

    def drain(self) -> None:
        """Pass all remaining batches to the sink."""
        while self._batches:
            self._pass_on()

    def _pass_on(self) -> None:
        batch, time_base, pending = self._batches.popleft()
        logits_NC = {name: wait() for name, wait in pending.items()}
        for teacher in self._teachers:
            require_storable(logits_NC[teacher.id], teacher, batch.index_N)
        self._sink.add(self._video, batch.without_views(), time_base, logits_NC)


def require_storable(
    targets_NC: np.ndarray, teacher: TeacherRecord, frame_index_N: np.ndarray
) -> None:
    """Raise TargetError, naming the first such frame, if the encoding cannot store a target.

    The text up to the colon is the same for all frames and videos: reports group by it.
    """
    unstorable = first_unstorable(targets_NC, teacher.encoding)
    if unstorable is None:
        return
    row, what = unstorable
    raise TargetError(
        f"teacher {teacher.id} gave {what}: frame {frame_index_N[row]}; {_remedy(teacher, what)}"
    )


def _remedy(teacher: TeacherRecord, what: str) -> str:
    if what not in ("NaN", "infinity"):
        return "store this teacher with encoding int8" if "float16" in what else "scale its output"
    if teacher.precision != "fp32":
        return "use precision fp32"
    return "check its weights and its code"
