"""One writer; the dead make room, the living are named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distinit.pipeline.lock import WriterLock
from distinit.schemas.errors import LockedError

HOLDER = """
import sys
from pathlib import Path
from distinit.pipeline.lock import WriterLock
WriterLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_writer_is_told_who_holds_it_and_a_dead_one_makes_room(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"pid {holder.pid}, host") as caught:
            WriterLock(path).acquire()
        assert "since 2" in str(caught.value)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with WriterLock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert path.read_text() == ""


def test_release_is_idempotent_and_frees(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "new" / ".lock")
    lock.acquire()
    lock.release()
    lock.release()
    assert lock.path.read_text() == ""
    with WriterLock(lock.path):
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()


def test_a_holder_on_another_host_is_believed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text(json.dumps({"pid": 1, "host": "elsewhere.example", "since": "2030"}))
    with pytest.raises(LockedError, match=r"elsewhere\.example") as caught:
        WriterLock(path).acquire()
    assert f"delete {path}" in str(caught.value)
    path.unlink()
    with WriterLock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00" * 9])
def test_an_unreadable_note_of_a_dead_holder_is_ignored(tmp_path: Path, content: str) -> None:
    path = tmp_path / ".lock"
    path.write_text(content)
    with WriterLock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
