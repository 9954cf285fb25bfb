"""Extraction survives killed processes, Ctrl-C, full and read-only disks, and a second driver."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import marked_by

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.schemas.errors import LockedError, StorageError, TooManyFailuresError
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import ExtractResult, extract

BROKEN = {"empty.mp4", "torn.mp4"}
MARK = "DISTINIT_TEST_MARK"
STOPPED = "stopped; finished units are kept; rerun the same command to resume\n"

# An ffmpeg that runs other commands when it is to decode (not probe) e.mp4.
ACCIDENT = """#!/bin/sh
case "$*" in
  *rawvideo*e.mp4*|*e.mp4*rawvideo*) {accident} ;;
esac
exec {ffmpeg} "$@"
"""


def values(corpus: Path, out: Path, **changes: Any) -> dict[str, Any]:
    settings = {
        "videos": str(corpus),
        "teachers": [{"name": "null"}],
        "cache": str(out / "cache"),
        "frames": str(out / "frames"),
        "unit_rows": 64,
        "batch_size": 16,
    }
    return settings | changes


def run(corpus: Path, out: Path, **changes: Any) -> ExtractResult:
    return extract(ExtractConfig.model_validate(values(corpus, out, **changes)))


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    """The same extraction from the command line."""
    options = ["--videos", str(corpus), "--teacher", "null", "--cache", str(out / "cache")]
    options += ["--frames", str(out / "frames"), "--set", "unit_rows=64", "--quiet"]
    return [sys.executable, "-m", "distinit.cli", "extract", *options, *more]


@pytest.fixture(scope="module")
def quiet(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed run."""
    return run(corpus, tmp_path_factory.mktemp("quiet")).content_digest


@pytest.fixture
def accident(
    tmp_path: Path, ffmpeg_exe: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """``accident(shell)``: from now on ffmpeg runs ``shell`` when it is to decode e.mp4."""

    def install(shell: str) -> None:
        script = tmp_path / "ffmpeg-with-accident"
        script.write_text(ACCIDENT.format(accident=shell, ffmpeg=ffmpeg_exe))
        script.chmod(0o755)
        monkeypatch.setenv("DISTINIT_FFMPEG", str(script))

    return install


@pytest.fixture
def stuck_driver(
    corpus: Path, tmp_path: Path, accident: Callable[[str], None], ffmpeg_exe: str
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a driver in a separate session, and wait until it is stuck in mid-run."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        flag = tmp_path / "stuck"
        accident(f"touch {flag}; exec sleep 600")
        process = subprocess.Popen(
            command(corpus, tmp_path, *options),
            env=os.environ | {MARK: str(tmp_path), "RAY_worker_niceness": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        _wait_for(lambda: flag.exists() or process.poll() is not None, 270)
        assert process.poll() is None, process.communicate()
        os.environ["DISTINIT_FFMPEG"] = ffmpeg_exe
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _wait_for(
    condition: Callable[[], object], seconds: float, state: Callable[[], object] = lambda: ""
) -> None:
    """Wait for ``condition``; fails after ``seconds``, which are far more than it can take."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"waited too long {state()}"
        time.sleep(0.05)


def marked(tmp_path: Path) -> dict[int, str]:
    return marked_by(MARK, str(tmp_path))


def check_resumed(corpus: Path, out: Path, quiet: str) -> None:
    """Rerunning the command completes the cache with the digest of an undisturbed run."""
    result = run(corpus, out)
    assert result.content_digest == quiet
    assert {video.path for video in result.failed} == BROKEN
    assert verify_cache(out / "cache").problems == ()


def test_an_ffmpeg_killed_from_outside_does_not_fail_its_video(
    corpus: Path, tmp_path: Path, accident: Callable[[str], None], quiet: str
) -> None:
    once = tmp_path / "killed"
    accident(f"test -e {once} || {{ touch {once}; kill -9 $$; }}")
    check_resumed(corpus, tmp_path, quiet)
    assert once.exists()


def test_a_killed_probe_does_not_change_the_plan(
    corpus: Path, tmp_path: Path, ffmpeg_exe: str, monkeypatch: pytest.MonkeyPatch, quiet: str
) -> None:
    script, once = tmp_path / "ffmpeg", tmp_path / "killed"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *long.mp4*) test -e {once} || {{ touch {once}; kill -9 $$; }};;'
        f' esac\nexec {ffmpeg_exe} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("DISTINIT_FFMPEG", str(script))
    check_resumed(corpus, tmp_path, quiet)
    assert once.exists()


def test_an_ffmpeg_killed_at_every_try_fails_only_its_video_until_it_is_retried(
    corpus: Path,
    tmp_path: Path,
    accident: Callable[[str], None],
    ffmpeg_exe: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = tmp_path / "tries"
    accident(f"echo x >> {tries}; kill -9 $$")
    result = run(corpus, tmp_path, max_failed=0.5)
    assert {video.path for video in result.failed} == {*BROKEN, "e.mp4"}
    (error,) = [video.error for video in result.failed if video.path == "e.mp4"]
    assert error == "ffmpeg was ended from outside by SIGKILL"
    assert tries.read_text() == "x\n" * 3
    monkeypatch.setenv("DISTINIT_FFMPEG", ffmpeg_exe)
    again = run(corpus, tmp_path, retry_failed=True)
    assert {video.path for video in again.failed} == BROKEN
    assert again.frames == 256


def test_sigterm_ends_a_run_as_ctrl_c_does_with_its_own_exit_code(
    corpus: Path, tmp_path: Path, stuck_driver: Callable[..., Any], quiet: str
) -> None:
    driver = stuck_driver()
    driver.terminate()  # the driver alone
    assert driver.communicate(timeout=30) == ("", STOPPED)
    assert driver.returncode == ExitCode.TERMINATED
    assert marked(tmp_path) == {}
    assert not list(tmp_path.rglob("*.partial"))
    check_resumed(corpus, tmp_path, quiet)


def test_a_second_driver_learns_who_is_writing_and_ctrl_c_leaves_no_partial_files(
    corpus: Path, tmp_path: Path, stuck_driver: Callable[..., Any], quiet: str
) -> None:
    driver = stuck_driver()
    with pytest.raises(LockedError, match="another process is writing") as refused:
        run(corpus, tmp_path)
    assert f"pid {driver.pid}" in str(refused.value)
    assert f"since {time.strftime('%Y-')}" in str(refused.value)
    os.killpg(driver.pid, signal.SIGINT)  # what a terminal does
    out, err = driver.communicate(timeout=30)
    assert driver.returncode == 130
    assert (out, err) == ("", STOPPED)
    assert marked(tmp_path) == {}
    assert (tmp_path / "cache" / ".lock").read_bytes() == b""
    assert not list(tmp_path.rglob("*.partial"))
    check_resumed(corpus, tmp_path, quiet)


def test_sigkill_of_the_driver_leaves_no_process_and_no_lasting_lock(
    corpus: Path, tmp_path: Path, stuck_driver: Callable[..., Any], quiet: str
) -> None:
    driver = stuck_driver()
    assert len(marked(tmp_path)) >= 2  # the driver and an ffmpeg
    driver.kill()
    driver.wait()
    _wait_for(lambda: not marked(tmp_path), 120, lambda: marked(tmp_path))
    holder = json.loads((tmp_path / "cache" / ".lock").read_text())
    assert holder["pid"] == driver.pid
    check_resumed(corpus, tmp_path, quiet)


@pytest.mark.ray
@pytest.mark.timeout(600)  # Ray takes minutes to start when other work holds the cores
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_when_a_driver_ends_its_ray_its_workers_and_their_ffmpegs_end_too(
    how: signal.Signals, corpus: Path, tmp_path: Path, stuck_driver: Callable[..., Any], quiet: str
) -> None:
    driver = stuck_driver("--workers", "2")

    def names() -> str:
        return " ".join(marked(tmp_path).values())

    _wait_for(lambda: "sleep" in names(), 120, names)  # the shell becomes it after its sign
    assert "raylet" in names()
    assert "ray::DistInitWorker" in names()
    if how == signal.SIGINT:
        os.killpg(driver.pid, how)  # what a terminal does
    else:
        driver.send_signal(how)  # the driver alone
    _wait_for(lambda: not marked(tmp_path), 120, lambda: marked(tmp_path))
    _, err = driver.communicate(timeout=120)
    if how != signal.SIGKILL:
        assert driver.returncode == 128 + how
        assert err == STOPPED
    check_resumed(corpus, tmp_path, quiet)


def test_a_file_size_limit_ends_the_run_with_one_message_and_it_can_be_resumed(
    corpus: Path, tmp_path: Path, quiet: str
) -> None:
    """RLIMIT_FSIZE makes writes fail as on a full disk, and needs no privileges."""
    limited = ["bash", "-c", 'ulimit -f 60; exec "$@"', "bash", *command(corpus, tmp_path)]
    ended = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.startswith("error: cannot write ")
    assert "File too large" in ended.stderr
    assert "Traceback" not in ended.stderr
    check_resumed(corpus, tmp_path, quiet)


SMALL_DISKS = """
import json, subprocess, sys
from pathlib import Path
from distinit.schemas.errors import StorageError
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract

def mount(*options):
    return subprocess.run(["mount", *options], capture_output=True, check=False).returncode

def attempt():
    try:
        return extract(config).content_digest
    except StorageError as error:
        return error.found

for kib in (8, 24, 40, 80, 200, 360):
    disk = Path(sys.argv[1]) / str(kib)
    disk.mkdir()
    if mount("-t", "tmpfs", "-o", f"size={kib}k", "none", str(disk)):
        sys.exit(77)
    settings = json.loads(sys.argv[2]) | {"cache": f"{disk}/c", "frames": f"{disk}/f"}
    config = ExtractConfig.model_validate(settings)
    full = attempt()
    mount("-o", "remount,size=64m", str(disk))
    room = attempt()
    mount("-o", "remount,ro", str(disk))
    print(json.dumps([kib, full, room, attempt()]))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare of util-linux")
def test_runs_survive_a_disk_that_fills_up_at_any_point_and_a_read_only_disk(
    corpus: Path, tmp_path: Path, quiet: str
) -> None:
    """Uses real tmpfs of several small sizes, in a separate mount namespace."""
    settings = json.dumps(values(corpus, tmp_path))
    ended = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", SMALL_DISKS, str(tmp_path), settings],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 77 or "unshare" in ended.stderr:
        pytest.skip(f"no mount namespaces here: {ended.stderr.strip()}")
    assert ended.returncode == 0, ended.stderr
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert found == [
        [kib, "No space left on device", quiet, "Read-only file system"]
        for kib in (8, 24, 40, 80, 200, 360)
    ]


def test_a_folder_that_cannot_be_written_is_refused_with_one_message(
    corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    # The kernel's own file system refuses new folders to everyone, root included.
    for target in ("/sys/distinit", str(tmp_path / "file"), str(tmp_path / "file" / "cache")):
        with pytest.raises(StorageError, match="cannot write") as refused:
            run(corpus, tmp_path, cache=target, frames=None)
        assert "folder" in (refused.value.remedy or "")
    assert (tmp_path / "file").read_text() == "in the way"


def test_max_failed_ends_the_run_early_and_a_higher_value_resumes_it(
    corpus: Path, tmp_path: Path, quiet: str
) -> None:
    with pytest.raises(TooManyFailuresError, match="all good ones are committed") as caught:
        run(corpus, tmp_path, max_failed=0.0)
    message = str(caught.value)
    assert "--max-failed" in message
    assert re.search(r"1 failed, which is 14.3%; the run was stopped .*\n +1 x ", message)
    assert "none of 7 videos\n" in message
    assert "rerun the same command with --max-failed 1 to resume" in message
    assert "--retry-failed" in message
    committed = len(list((tmp_path / "cache" / "teachers" / "null" / "commits").iterdir()))
    assert 1 <= committed < 6, "it must commit its current task and not start all others"
    with pytest.raises(Exception, match=r"incomplete|not complete|unfinished"):
        TargetCache.open(tmp_path / "cache")
    check_resumed(corpus, tmp_path, quiet)
