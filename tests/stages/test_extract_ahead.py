"""Decoding videos of upcoming tasks, whether or not the worker really gets these tasks."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from helpers.processes import children
from helpers.videos import make_video

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.compute.executor import Event, Finished, Progressed
from distinit.pipeline.compute.in_process import InProcessExecutor
from distinit.pipeline.video import decode
from distinit.pipeline.video.decode import FrameBlock, VideoStream
from distinit.schemas.extract import ExtractConfig
from distinit.stages import extract as stage
from distinit.stages.extract import ExtractResult

LONG_VIDEOS = 5
SECONDS = 120
DECODED = 6  # videos of the corpus; ffmpeg is not started for the empty file


class Announcing(InProcessExecutor):
    """Passes tasks by value, as Ray does; ``announced`` picks the tasks announced as the next."""

    def __init__(self, announced: Callable[[Sequence[Any], int], Sequence[Any]]) -> None:
        super().__init__()
        self._announced = announced

    def _run(self, worker: Any, tasks: Sequence[Any], ahead: Any) -> Iterator[Event[Any, Any]]:
        for position, task in enumerate(tasks):
            upcoming = self._announced(tasks, position)
            notes = worker.run(copy.deepcopy(task), copy.deepcopy(upcoming))
            while True:
                try:
                    note = next(notes)
                except StopIteration as stop:
                    yield Finished(task, stop.value)
                    break
                yield Progressed(task, note)


def all_next(tasks: Sequence[Any], position: int) -> Sequence[Any]:
    return tasks[position + 1 :]


def wrong_next(tasks: Sequence[Any], position: int) -> Sequence[Any]:
    """The task after the next one."""
    return [tasks[(position + 2) % len(tasks)]]


def some_next(tasks: Sequence[Any], position: int) -> Sequence[Any]:
    """Every other task, now the even ones and now the odd ones: half are abandoned each time."""
    return tasks[position + 1 + position % 2 :: 2]


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 80 frames: with units of 64 rows, each is a group of two units."""
    root = tmp_path_factory.mktemp("long")
    for seed in range(LONG_VIDEOS):
        make_video(root / f"{seed}.mp4", frames=80, seed=seed)
    return root


@pytest.fixture(scope="module")
def one_by_one(long_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extraction of the long videos with one open at a time."""
    out = tmp_path_factory.mktemp("one by one")
    run(long_videos, out, parallel=1)
    return out


@pytest.fixture
def decodes(tmp_path: Path, ffmpeg_exe: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one line per ffmpeg process that was started to decode."""
    script, log = tmp_path / "ffmpeg", tmp_path / "decodes"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *file:*rawvideo*) echo x >> {log};; esac\n'
        f'exec {ffmpeg_exe} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("DISTINIT_FFMPEG", str(script))
    return log


def run(corpus: Path, out: Path, parallel: int = 2, workers: int = 0) -> ExtractResult:
    values = {
        "videos": str(corpus),
        "teachers": [{"name": "null"}],
        "cache": str(out / "cache"),
        "frames": str(out / "frames"),
        "unit_rows": 64,
        "decode": {"parallel_videos": parallel},
        "compute": {"workers": workers},
    }
    return stage.extract(ExtractConfig.model_validate(values))


def stored_files(out: Path) -> dict[str, bytes]:
    """The Arrow files of the frame store."""
    return {path.name: path.read_bytes() for path in (out / "frames").glob("*.arrow")}


class OpenVideos:
    """Counts the videos that are open at a time; each waits until ``expected`` are, or all left."""

    def __init__(self, expected: int, videos: int) -> None:
        self._expected = expected
        self._left = videos
        self._changed = threading.Condition()
        self.now, self.most = 0, 0

    def opened(self) -> None:
        with self._changed:
            self.now += 1
            self.most = max(self.most, self.now)
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            enough = self._changed.wait_for(
                lambda: self.most >= self._expected or self.now == self._left, SECONDS
            )
        assert enough, f"{self.most} videos were open at a time"

    def closed(self) -> None:
        with self._changed:
            self.now -= 1
            self._left -= 1


def watch(monkeypatch: pytest.MonkeyPatch, videos: OpenVideos) -> None:
    """Let each video wait after its first block."""

    class Watched(VideoStream):
        def __enter__(self) -> Self:
            videos.opened()
            return super().__enter__()

        def __next__(self) -> FrameBlock:
            block = super().__next__()
            if block.first_index == 0:
                videos.wait()
            return block

        def __exit__(self, *_: object) -> None:
            super().__exit__()
            videos.closed()

    monkeypatch.setattr(decode, "VideoStream", Watched)


@pytest.mark.parametrize(
    ("announced", "wasted"), [(all_next, False), (wrong_next, True), (some_next, True)]
)
def test_videos_decoded_ahead_are_used_if_their_task_comes_next_and_dropped_if_not(
    announced: Callable[..., Any],
    wasted: bool,
    corpus: Path,
    tmp_path: Path,
    decodes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quiet = run(corpus, tmp_path / "quiet")
    assert decodes.read_text() == "x\n" * DECODED
    decodes.unlink()
    before = children()
    monkeypatch.setattr(stage, "InProcessExecutor", lambda: Announcing(announced))
    assert run(corpus, tmp_path / "announced").content_digest == quiet.content_digest
    assert stored_files(tmp_path / "announced") == stored_files(tmp_path / "quiet")
    assert (decodes.read_text().count("x") > DECODED) == wasted
    assert children() - before == set()


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_as_many_long_videos_are_decoded_at_a_time_as_configured(
    parallel: int,
    long_videos: Path,
    one_by_one: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    videos = OpenVideos(parallel, LONG_VIDEOS)
    watch(monkeypatch, videos)
    result = run(long_videos, tmp_path, parallel)
    assert (videos.most, videos.now) == (parallel, 0)
    assert result.frames_done == LONG_VIDEOS * 80
    assert result.content_digest == TargetCache.open(one_by_one / "cache").manifest.content_digest
    assert stored_files(tmp_path) == stored_files(one_by_one)


@pytest.mark.ray
def test_two_ray_workers_share_long_videos_and_each_is_extracted_once(
    long_videos: Path, one_by_one: Path, tmp_path: Path, ray_session: None
) -> None:
    result = run(long_videos, tmp_path, parallel=4, workers=2)
    assert result.frames_done == LONG_VIDEOS * 80
    assert result.content_digest == TargetCache.open(one_by_one / "cache").manifest.content_digest
    assert stored_files(tmp_path) == stored_files(one_by_one)
