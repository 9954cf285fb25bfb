"""What teachers answer: awaited in order, checked frame by frame, passed on to the sink."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from distinit.pipeline.cache.encoding import first_unstorable
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.extraction.batches import FrameBatch
from distinit.pipeline.extraction.sink import Sink
from distinit.pipeline.teachers.forward import PendingLogits
from distinit.schemas.errors import TargetError
from distinit.schemas.teacher import TeacherRecord

__all__ = ["Answers", "require_storable"]

_BATCHES_AHEAD = 1  # submitted to the teachers while the one before is awaited


class Answers:
    """Batches of one video on their way through the teachers to the sink, in order.

    Every method raises TargetError once a teacher has answered what cannot be stored.
    """

    def __init__(self, sink: Sink, video: PlannedRows, teachers: Sequence[TeacherRecord]) -> None:
        self._sink = sink
        self._video = video
        self._teachers = teachers
        self._pending: deque[tuple[FrameBatch, str, dict[str, PendingLogits]]] = deque()

    def add(self, batch: FrameBatch, time_base: str, answers: dict[str, PendingLogits]) -> None:
        """Wait for the batches before, up to those that may be under way beside this one."""
        self._pending.append((batch, time_base, answers))
        while len(self._pending) > _BATCHES_AHEAD:
            self._pass_on()

    def drain(self) -> None:
        """Wait for all of them."""
        while self._pending:
            self._pass_on()

    def _pass_on(self) -> None:
        batch, time_base, answers = self._pending.popleft()
        logits = {name: answer() for name, answer in answers.items()}
        for teacher in self._teachers:
            require_storable(logits[teacher.id], teacher, batch.index_N)
        self._sink.add(self._video, batch.without_views(), time_base, logits)


def require_storable(
    targets_NC: np.ndarray, teacher: TeacherRecord, frame_index_N: np.ndarray
) -> None:
    """Raise TargetError, naming the first frame, if the encoding cannot hold an answer.

    The text up to the colon is the same for all frames and videos: reports group by it.
    """
    found = first_unstorable(targets_NC, teacher.encoding)
    if found is None:
        return
    row, what = found
    raise TargetError(
        f"teacher {teacher.id} gave {what}: frame {frame_index_N[row]}; {_remedy(teacher, what)}"
    )


def _remedy(teacher: TeacherRecord, what: str) -> str:
    if what not in ("NaN", "infinity"):
        return "store this teacher with encoding int8" if "float16" in what else "scale its output"
    if teacher.precision != "fp32":
        return "use precision fp32"
    return "check its weights and its code"
