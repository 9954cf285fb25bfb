"""Several videos are decoded at once: none waits for another, and closing ends all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from helpers.caches import planned_video, with_file
from helpers.processes import children
from helpers.videos import make_video

from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.corpus.source import VideoSource
from distinit.pipeline.extraction.task import ExtractionTask, Note, WorkerSpec
from distinit.pipeline.extraction.worker import ExtractionWorker
from distinit.pipeline.teachers.forward import PendingLogits
from distinit.pipeline.teachers.null import NullTeacher
from distinit.pipeline.video import decode
from distinit.pipeline.video.decode import FrameBlock, VideoStream
from distinit.schemas.errors import StorageError
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.teacher import TeacherRecord, TeacherRequest
from distinit.schemas.video import DecodeConfig, SamplingConfig

COUNTS = {"a.mp4": 40, "b.mp4": 50, "c.mp4": 60}
"""Frames; with units of 64 rows, each video has a unit of its own."""
SECONDS = 60


class Watching(NullTeacher):
    """The null teacher; sets ``seen`` when it gets frames of one width."""

    def __init__(self, width: int) -> None:
        super().__init__(TeacherRequest(name="null"))
        self.width = width
        self.seen = threading.Event()

    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        if frames_NHWC.shape[2] == self.width:
            self.seen.set()
        return super().submit(frames_NHWC)


@dataclass(frozen=True)
class Broken(VideoSource):
    """Raises an error for one path, which is not the fault of the video."""

    broken: str = ""

    @contextmanager
    def open(
        self, path: str, digest: str | None, stopping: threading.Event | None = None
    ) -> Iterator[Path]:
        if path == self.broken:
            raise StorageError("made up")
        with super().open(path, digest, stopping) as local:
            yield local


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Each video has another width: 32, 48, 64."""
    for number, (name, frames) in enumerate(COUNTS.items()):
        make_video(tmp_path / "videos" / name, frames=frames, size=(32 + 16 * number, 32))
    return tmp_path / "videos"


@pytest.fixture
def writer(tmp_path: Path, corpus: Path) -> Iterator[CacheWriter]:
    teacher = NullTeacher(TeacherRequest(name="null"))
    record = TeacherRecord(
        id=teacher.id,
        fingerprint=teacher.identity.fingerprint,
        identity=teacher.identity,
        encoding="float16",
        batch_size=16,
        software={},
    )
    videos = [
        with_file(planned_video(str(number) * 64, name, frames), corpus)
        for number, (name, frames) in enumerate(COUNTS.items())
    ]
    with CacheWriter.create_or_open(
        tmp_path / "cache",
        videos=videos,
        sampling=SamplingConfig(),
        teachers={teacher.id: record},
        unit_rows=64,
    ) as writer:
        yield writer


def worker_of(source: VideoSource, teacher: Watching, parallel: int = 2) -> ExtractionWorker:
    spec = WorkerSpec(
        source=source,
        frames_root=None,
        plan_digest="0" * 64,
        geometry=FrameGeometry(),
        sampling=SamplingConfig(),
        decode=DecodeConfig(),
        parallel_videos=parallel,
    )
    return ExtractionWorker(spec, {"null": teacher})


def tasks_of(writer: CacheWriter) -> list[ExtractionTask]:
    return [ExtractionTask(spec) for spec in writer.pending_groups()]


def path_in(spec: GroupSpec) -> str:
    (video,) = spec.videos
    return video.path


def wait_inside(
    monkeypatch: pytest.MonkeyPatch, path: str, event: threading.Event, *, after: int
) -> None:
    """Let the decoding of one video stop after some blocks until an event is set."""

    class Waiting(VideoStream):
        def __next__(self) -> FrameBlock:
            block = super().__next__()
            if self.path.name == path and block.first_index >= after:
                assert event.wait(SECONDS)
            return block

    monkeypatch.setattr(decode, "VideoStream", Waiting)


def test_a_video_whose_decoding_waits_holds_up_no_video_of_the_next_task(
    corpus: Path, writer: CacheWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first video goes on only after the teacher has seen frames of the second."""
    tasks = tasks_of(writer)
    assert len(tasks) == len(COUNTS)
    first, second = (path_in(task.spec) for task in tasks[:2])
    teacher = Watching(width=32 + 16 * list(COUNTS).index(second))
    wait_inside(monkeypatch, first, teacher.seen, after=16)
    worker = worker_of(VideoSource(corpus), teacher)
    notes = list(worker.run(tasks[0], tasks[1:2]))
    assert [note.path for note in notes if note.outcome] == [first]
    assert teacher.seen.is_set()
    worker.close()


def test_after_a_death_a_video_is_alone(corpus: Path, writer: CacheWriter) -> None:
    task, next_task = tasks_of(writer)[:2]
    worker = worker_of(VideoSource(corpus), Watching(width=0))
    notes = list(worker.run(replace(task, deaths=("*",)), [next_task]))
    worker.close()
    assert {note.path for note in notes} == {path_in(task.spec)}
    assert all(note.alone for note in notes)


def test_progress_of_the_next_task_is_told_when_it_is_the_current_one(
    corpus: Path, writer: CacheWriter
) -> None:
    tasks = tasks_of(writer)
    worker = worker_of(VideoSource(corpus), Watching(width=0))
    told: list[list[Note]] = [
        list(worker.run(task, tasks[position + 1 :])) for position, task in enumerate(tasks)
    ]
    worker.close()
    paths = [path_in(task.spec) for task in tasks]
    assert [{note.path for note in notes} for notes in told] == [{path} for path in paths]
    frames = [sum(note.frame_count for note in notes) for notes in told]
    assert frames == [COUNTS[path] for path in paths]
    assert [sum(note.outcome is not None for note in notes) for notes in told] == [1, 1, 1]


def test_an_error_that_is_not_of_the_video_ends_the_run_and_all_threads(
    corpus: Path, writer: CacheWriter, tmp_path: Path
) -> None:
    tasks = tasks_of(writer)
    before = threading.active_count()
    source = Broken(corpus, broken=path_in(tasks[2].spec))
    worker = worker_of(source, Watching(width=0), parallel=3)
    list(worker.run(tasks[0], tasks[1:2]))
    with pytest.raises(StorageError, match="made up"):
        list(worker.run(tasks[1], tasks[2:]))
    assert threading.active_count() == before
    assert not any((tmp_path / "cache" / ".staging").glob("*"))


def test_closing_in_the_middle_ends_every_ffmpeg_and_every_thread(
    corpus: Path, writer: CacheWriter, tmp_path: Path
) -> None:
    before, ffmpegs = threading.active_count(), children()
    worker = worker_of(VideoSource(corpus), Watching(width=0), parallel=3)
    tasks = tasks_of(writer)
    notes = worker.run(tasks[0], tasks[1:2])
    next(notes)
    notes.close()
    worker.close()
    assert threading.active_count() == before
    assert children() == ffmpegs
    assert not any((tmp_path / "cache" / ".staging").glob("*"))
