"""What one extraction worker computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.caches import planned_video, with_file
from helpers.videos import make_video

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.corpus.source import VideoSource
from distinit.pipeline.extraction.task import ExtractionTask, WorkerSpec
from distinit.pipeline.extraction.worker import ExtractionWorker
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.pipeline.teachers.forward import PendingLogits
from distinit.pipeline.teachers.null import NullTeacher
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.teacher import TeacherRecord, TeacherRequest
from distinit.schemas.video import DecodeConfig, SamplingConfig

FRAMES, BATCH = 100, 16


class CountingTeacher(NullTeacher):
    """The null teacher; counts the frames that it is given."""

    frame_count = 0

    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        self.frame_count += len(frames_NHWC)
        return super().submit(frames_NHWC)

    @property
    def batch_size(self) -> int:
        return BATCH


def record_of(teacher: CountingTeacher) -> TeacherRecord:
    return TeacherRecord(
        id=teacher.id,
        fingerprint=teacher.identity.fingerprint,
        identity=teacher.identity,
        encoding="float16",
        batch_size=BATCH,
        software={},
    )


def run_pending(worker: ExtractionWorker, writer: CacheWriter) -> None:
    for spec in writer.pending_groups():
        for _ in worker.run(ExtractionTask(spec), ()):
            pass
    worker.close()


@pytest.mark.parametrize(("reserved", "computed"), [(40, 32), (96, 96), (FRAMES, FRAMES)])
def test_teachers_stop_when_a_video_has_more_rows_than_planned(
    tmp_path: Path, reserved: int, computed: int
) -> None:
    """Batches of 16 are computed as long as they fit; then the frames are only counted."""
    make_video(tmp_path / "videos" / "a.mp4", frames=FRAMES)
    geometry, teacher = FrameGeometry(), CountingTeacher(TeacherRequest(name="null"))
    video = with_file(planned_video("a" * 64, "a.mp4", reserved), tmp_path / "videos")
    with CacheWriter.create_or_open(
        tmp_path / "cache",
        videos=[replace(video, probe=replace(video.probe, frame_count=reserved))],
        sampling=SamplingConfig(),
        teachers={teacher.id: record_of(teacher)},
        unit_rows=128,
    ) as writer:
        spec = WorkerSpec(
            source=VideoSource(tmp_path / "videos"),
            frames_root=tmp_path / "frames",
            plan_digest=writer.plan.digest,
            geometry=geometry,
            sampling=SamplingConfig(),
            decode=DecodeConfig(),
        )
        worker = ExtractionWorker(spec, {teacher.id: teacher})
        run_pending(worker, writer)
        assert teacher.frame_count == computed
        (outcome,) = writer.state().outcomes.values()
        assert (outcome.frame_count, outcome.rows) == (FRAMES, FRAMES)
        assert outcome.status == ("spilled" if reserved < FRAMES else "ok")
        store = FrameStoreWriter(tmp_path / "frames", geometry, writer.plan.digest)
        stored = sum(rows.frame_count for rows in store.read_commit(0).videos)
        assert stored == (0 if reserved < FRAMES else FRAMES)
        assert writer.replan_spilled() == (reserved < FRAMES)
        run_pending(worker, writer)
        assert writer.finalise().complete
        store.finalise(group.first_unit for group in writer.plan.groups)
    rows_N = np.arange(FRAMES) + (128 if reserved < FRAMES else 0)
    logits_NC = TargetCache.open(tmp_path / "cache").targets(teacher.id).logits(rows_N)
    assert logits_NC.shape == (FRAMES, 16)
    assert np.isfinite(logits_NC).all()
    assert FrameStore.open(tmp_path / "frames").videos[outcome.video_id].frame_count == FRAMES
