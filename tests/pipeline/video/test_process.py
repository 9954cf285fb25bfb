"""Limits, and that no ffmpeg outlives its stream, its thread's end or its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from distinit.pipeline.video import View, open_video
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig

CONFIG = DecodeConfig(deadline_seconds=60, stall_seconds=30)
SOURCE = {"source": View.source()}


def run_into(path: Path, reason: str, config: DecodeConfig) -> None:
    """Decoding fails for ``reason``."""
    with pytest.raises(DecodeError, match=reason), open_video(path, SOURCE, config) as stream:
        list(stream)


@pytest.mark.usefixtures("slow_ffmpeg")
def test_deadline(tmp_path: Path, make_video: Any) -> None:
    path = make_video(tmp_path / "a.mp4", frames=100, rate=5)
    config = CONFIG.model_copy(update={"deadline_seconds": 1.5})
    run_into(path, r"took longer than deadline_seconds=1\.5", config)


@pytest.mark.usefixtures("slow_ffmpeg")
def test_stall(tmp_path: Path, make_video: Any) -> None:
    args = ("-c:v", "mpeg4", "-vf", "setpts=PTS*200")
    path = make_video(tmp_path / "a.mkv", frames=4, rate=10, args=(*args, "-fps_mode", "vfr"))
    config = CONFIG.model_copy(update={"stall_seconds": 1.5})
    run_into(path, r"stalled: no data for stall_seconds=1\.5", config)


def test_a_busy_reader_is_no_stall(tmp_path: Path, make_video: Any) -> None:
    path = make_video(tmp_path / "a.mp4", frames=12)
    config = CONFIG.model_copy(update={"stall_seconds": 2.5, "deadline_seconds": 3.0})
    with open_video(path, SOURCE, config, block_frames=2) as stream:
        next(stream)
        time.sleep(3.5)
        assert 2 + sum(len(block) for block in stream) == 12


def test_memory_limit(tmp_path: Path, make_video: Any) -> None:
    args = ("-c:v", "libx264", "-preset", "ultrafast")
    path = make_video(tmp_path / "a.mp4", frames=10, size=(1280, 720), args=args)
    config = CONFIG.model_copy(update={"max_memory_mib": 64})

    def read_slowly() -> None:
        with open_video(path, SOURCE, config, block_frames=1) as stream:
            for _ in stream:
                time.sleep(0.1)

    with pytest.raises(DecodeError, match="needs more memory than max_memory_mib=64"):
        read_slowly()


def test_leaving_early_ends_ffmpeg(tmp_path: Path, make_video: Any, ends_within: Any) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40, size=(480, 360))
    threads = threading.active_count()
    with open_video(path, SOURCE, CONFIG, block_frames=2) as stream:
        next(stream)
        pid = stream.pid
        assert not ends_within(pid, 0.3)
    assert ends_within(pid, 0)
    assert stream.summary is None
    assert threading.active_count() <= threads + 1  # the thread that starts processes stays


def test_an_exception_in_the_caller_ends_ffmpeg(
    tmp_path: Path, make_video: Any, ends_within: Any
) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40, size=(480, 360))
    with pytest.raises(KeyError), open_video(path, SOURCE, CONFIG, block_frames=2) as stream:
        raise KeyError(next(stream).first_index)
    assert ends_within(stream.pid, 0)


def test_no_descriptor_is_left_open(tmp_path: Path, make_video: Any) -> None:
    path = make_video(tmp_path / "a.mp4", frames=4)

    def use() -> int:
        with open_video(path, SOURCE, CONFIG) as stream:
            list(stream)
        return len(list(Path("/proc/self/fd").iterdir()))

    assert use() == use()


def test_a_stream_outlives_the_thread_that_opened_it(tmp_path: Path, make_video: Any) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40, size=(480, 360))
    stream = open_video(path, SOURCE, CONFIG, block_frames=4)
    opener = threading.Thread(target=stream.__enter__)
    opener.start()
    opener.join()
    time.sleep(0.3)
    with stream._process:  # type: ignore[union-attr]
        assert sum(len(block) for block in stream) == 40


def test_it_works_in_a_forked_process(tmp_path: Path, make_video: Any) -> None:
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
    tmp_path: Path, make_video: Any, ends_within: Any, slow: bool, request: pytest.FixtureRequest
) -> None:
    if slow:  # ffmpeg sleeps and writes nothing: no broken pipe will tell it
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
