"""Limits, and that no ffmpeg outlives its stream, the thread that opened it or the process."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import ends_within
from helpers.videos import make_video

from distinit.pipeline.video import VideoStream, View, decode_process, open_video
from distinit.pipeline.video import process as process_module
from distinit.pipeline.video import spawn as spawn_module
from distinit.pipeline.video.process import FFmpegProcess
from distinit.pipeline.video.spawn import spawn
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig

CONFIG = DecodeConfig(deadline_seconds=60, stall_seconds=30)
SOURCE = {"source": View.source()}


def assert_fails(path: Path, reason: str, config: DecodeConfig) -> None:
    """Decoding must fail for ``reason``."""
    with pytest.raises(DecodeError, match=reason), open_video(path, SOURCE, config) as stream:
        list(stream)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.usefixtures("slow_ffmpeg")
def test_decoding_ends_at_the_deadline(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=100, rate=5)
    config = CONFIG.model_copy(update={"deadline_seconds": 1.5})
    assert_fails(path, r"took longer than deadline_seconds=1\.5", config)


@pytest.mark.usefixtures("slow_ffmpeg")
def test_a_stalled_ffmpeg_is_killed(tmp_path: Path) -> None:
    args = ("-c:v", "mpeg4", "-vf", "setpts=PTS*200")
    path = make_video(tmp_path / "a.mkv", frames=4, rate=10, args=(*args, "-fps_mode", "vfr"))
    config = CONFIG.model_copy(update={"stall_seconds": 1.5})
    assert_fails(path, r"stalled: no data for stall_seconds=1\.5", config)


def test_a_busy_reader_does_not_count_as_a_stall(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=12)
    config = CONFIG.model_copy(update={"stall_seconds": 2.5, "deadline_seconds": 3.0})
    with open_video(path, SOURCE, config, block_frames=2) as stream:
        next(stream)
        time.sleep(3.5)
        assert 2 + sum(len(block) for block in stream) == 12


def test_an_ffmpeg_above_the_memory_limit_is_killed(tmp_path: Path) -> None:
    args = ("-c:v", "libx264", "-preset", "ultrafast")
    path = make_video(tmp_path / "a.mp4", frames=10, size=(1280, 720), args=args)
    config = CONFIG.model_copy(update={"max_memory_mib": 64})

    def read_slowly() -> None:
        with open_video(path, SOURCE, config, block_frames=1) as stream:
            for _ in stream:
                time.sleep(0.1)

    with pytest.raises(DecodeError, match="needs more memory than max_memory_mib=64"):
        read_slowly()


def test_closing_a_stream_early_ends_ffmpeg(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40, size=(480, 360))
    threads = threading.active_count()
    with open_video(path, SOURCE, CONFIG, block_frames=2) as stream:
        next(stream)
        pid = stream.pid
        assert not ends_within(pid, 0.3)
    assert ends_within(pid, 0)
    assert stream.summary is None
    assert threading.active_count() <= threads + 1  # the thread that starts processes stays


def test_an_exception_in_the_caller_ends_ffmpeg(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40, size=(480, 360))
    with pytest.raises(KeyError), open_video(path, SOURCE, CONFIG, block_frames=2) as stream:
        raise KeyError(next(stream).first_index)
    assert ends_within(stream.pid, 0)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=4)

    def use() -> int:
        with open_video(path, SOURCE, CONFIG) as stream:
            list(stream)
        return open_descriptors()

    assert use() == use()


def test_a_stream_outlives_the_thread_that_opened_it(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40, size=(480, 360))
    streams: list[VideoStream] = []
    opener = threading.Thread(
        target=lambda: streams.append(open_video(path, SOURCE, CONFIG, block_frames=4))
    )
    opener.start()
    opener.join()
    time.sleep(0.3)
    with streams[0] as stream:
        assert sum(len(block) for block in stream) == 40


def nth_call_fails(real: Callable[..., Any], number: int) -> Callable[..., Any]:
    """``real``, except that call ``number`` (from 1) raises."""
    calls = itertools.count(1)

    def call(*args: Any, **options: Any) -> Any:
        if next(calls) == number:
            raise RuntimeError("made to fail")
        return real(*args, **options)

    return call


@pytest.mark.parametrize(
    ("target", "name", "number"),
    [
        (decode_process, "decode_command", 1),  # before ffmpeg starts
        (process_module, "spawn", 1),
        (FFmpegProcess, "run_thread", 1),  # ffmpeg runs, and nothing watches it
        (FFmpegProcess, "run_thread", 3),  # one thread reads an index, the next does not start
        (FFmpegProcess, "run_thread", 6),  # while the readers of frames start
    ],
)
def test_a_failure_while_opening_leaves_no_process_thread_or_descriptor(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: object,
    name: str,
    number: int,
) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40, size=(480, 360))
    with open_video(path, SOURCE, CONFIG) as stream:
        next(stream)  # the thread that starts processes stays
    started: list[subprocess.Popen[bytes]] = []

    def recorded(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(spawn(*args, **options))
        return started[-1]

    monkeypatch.setattr(process_module, "spawn", recorded)
    monkeypatch.setattr(target, name, nth_call_fails(getattr(target, name), number))
    threads, descriptors = threading.active_count(), open_descriptors()
    with (
        pytest.raises(RuntimeError, match="made to fail"),
        open_video(path, SOURCE, CONFIG) as stream,
    ):
        stream.read_ahead()
    assert len(started) == (0 if name in ("decode_command", "spawn") else 1)
    assert all(process.returncode == -signal.SIGKILL for process in started)
    assert (threading.active_count(), open_descriptors()) == (threads, descriptors)


def test_an_interrupt_while_ffmpeg_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets no process that it could end."""
    started: list[subprocess.Popen[bytes]] = []
    interrupted = threading.Event()
    caller, real_popen = threading.get_ident(), subprocess.Popen

    class InterruptedFuture(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            if threading.get_ident() == caller:
                raise KeyboardInterrupt
            return super().result(timeout)

    def slow_start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        assert interrupted.wait(60)
        started.append(real_popen(*args, **options))
        return started[-1]

    with tempfile.TemporaryFile() as log:
        spawn(["true"], stderr=log, pass_fds=()).wait()  # the thread that starts processes runs
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", slow_start)
            patch.setattr(spawn_module, "Future", InterruptedFuture)
            with pytest.raises(KeyboardInterrupt):
                spawn(["sleep", "600"], stderr=log, pass_fds=())
            interrupted.set()
            while not started:
                time.sleep(0.01)
        spawn(["true"], stderr=log, pass_fds=()).wait()  # the same thread has ended the other
    assert started[0].returncode == -signal.SIGKILL


def test_decoding_works_in_a_forked_process(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=4)
    code = f"""
import os, sys
from pathlib import Path
from distinit.pipeline.video import open_video
from distinit.schemas.video import DecodeConfig
def frames():
    with open_video(Path({str(path)!r}), {{}}, DecodeConfig(stall_seconds=20)) as stream:
        return sum(len(block) for block in stream)
assert frames() == 4
child = os.fork()
if child == 0:
    os._exit(0 if frames() == 4 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=False)
    assert ran.returncode == 0


@pytest.mark.parametrize("slow", [False, True])
def test_sigkill_of_the_parent_ends_ffmpeg(
    tmp_path: Path, slow: bool, request: pytest.FixtureRequest
) -> None:
    if slow:  # ffmpeg sleeps and writes nothing, so that no broken pipe ends it
        request.getfixturevalue("slow_ffmpeg")
    args = ("-c:v", "mpeg4", "-vf", "setpts=PTS*200", "-fps_mode", "vfr")
    path = make_video(tmp_path / "a.mkv", frames=40, size=(640, 480), args=args)
    code = f"""
import time
from pathlib import Path
from distinit.pipeline.video import View, open_video
from distinit.schemas.video import DecodeConfig
views = {{"source": View.source()}}
with open_video(Path({str(path)!r}), views, DecodeConfig(), block_frames=1) as stream:
    next(stream) if not {slow} else time.sleep(0.5)
    print(stream.pid, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    try:
        assert not ends_within(pid, 0.3)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    assert ends_within(pid, 5)
