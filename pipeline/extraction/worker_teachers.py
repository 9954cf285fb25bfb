"""The teachers of a worker: which views of the frames they need, and how batches reach them."""

from __future__ import annotations

from collections.abc import Mapping

from distinit.pipeline.extraction.batches import FrameBatch
from distinit.pipeline.extraction.task import ExtractionTask
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.teachers.forward import CPU_BATCH, PendingLogits
from distinit.pipeline.teachers.views import teacher_views
from distinit.pipeline.video.views import View

__all__ = ["WorkerTeachers"]

_BATCHES_IN_FLIGHT = 2
_GPU_BLOCK = 128  # frames; each block is submitted, encoded and written at once
_BYTES_IN_FLIGHT = 128 << 20
_NO_LIMIT = 1 << 62


class WorkerTeachers:
    """``teachers`` by id. Frames reach them in blocks of at most ``block_frames``.

    Teachers on a GPU join the blocks of all videos into batches of their own size.
    """

    def __init__(self, teachers: Mapping[str, Teacher]) -> None:
        self._teachers = teachers
        self._views, self._view_of = teacher_views(teachers.values())
        batch = max((t.batch_size for t in teachers.values()), default=CPU_BATCH)
        holds_frames = any(t.holds_frames for t in teachers.values())
        self.block_frames = min(batch, CPU_BATCH if holds_frames else _GPU_BLOCK)
        ahead = max((t.frames_ahead for t in teachers.values()), default=0)
        self.max_frames = max(ahead, _BATCHES_IN_FLIGHT * self.block_frames)
        self.max_bytes = _BYTES_IN_FLIGHT if holds_frames else _NO_LIMIT

    def view_of(self, task: ExtractionTask) -> dict[str, str]:
        """Teacher -> view, for the teachers of ``task``; the others already have its units."""
        return {record.id: self._view_of[record.id] for record in task.spec.teachers}

    def views(self, task: ExtractionTask) -> dict[str, View]:
        """The views that the teachers of ``task`` need, by name."""
        return {name: self._views[name] for name in self.view_of(task).values()}

    def submit(self, batch: FrameBatch, task: ExtractionTask) -> dict[str, PendingLogits]:
        """Start the teachers of ``task`` on a batch; pending logits by teacher."""
        return {
            name: self._teachers[name].submit(batch.views[view])
            for name, view in self.view_of(task).items()
        }

    def submit_exact(self, batch: FrameBatch, task: ExtractionTask) -> dict[str, PendingLogits]:
        """As ``submit``, in fp32, for those teachers that compute in another precision."""
        exact = {
            name: self._teachers[name].submit_exact(batch.views[view])
            for name, view in self.view_of(task).items()
        }
        return {name: pending for name, pending in exact.items() if pending is not None}
