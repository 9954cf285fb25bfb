"""The lock of a folder: acquiring it, waiting for it, finding out who holds it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from distinit.pipeline.lock import WriterLock
from distinit.schemas.errors import LockedError, StorageError


def test_a_second_writer_is_refused_and_a_waiting_one_gets_the_lock(tmp_path: Path) -> None:
    first, second = WriterLock(tmp_path / ".lock"), WriterLock(tmp_path / ".lock")
    assert second.holder() is None
    first.acquire()
    assert str(second.holder()).startswith(f"pid {os.getpid()}, host ")
    with pytest.raises(LockedError, match=f"another process is writing {tmp_path}"):
        second.acquire()
    messages: list[str] = []

    def message(text: str) -> None:
        messages.append(text)
        threading.Timer(0.1, first.release).start()

    with second.waiting(message):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert messages[0].startswith(f"waiting: another process is writing {tmp_path} (pid ")
    assert len(messages) == 1
    assert second.holder() is None


def test_waiting_for_a_holder_on_another_host_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"pid": 1, "host": "elsewhere.example"}))
    lock = WriterLock(tmp_path / ".lock")
    with pytest.raises(LockedError, match=r"elsewhere\.example"), lock.waiting(print):
        pass


@pytest.mark.parametrize("note", [b"[" * 4_000, b"\xff\xfe", b'{"host": 1e999}'])
def test_a_lock_file_with_any_content_can_be_read(tmp_path: Path, note: bytes) -> None:
    (tmp_path / ".lock").write_bytes(note)
    with WriterLock(tmp_path / ".lock"):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError):
        WriterLock(tmp_path / ".lock").acquire()
    assert (tmp_path / "victim").read_text() == "mine"
