"""Files are moved in threads: the first error is raised, and an interruption is not held up."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from helpers.progress import RecordingProgress

from distinit.pipeline.transport.parallel import Counter, move_all
from distinit.schemas.errors import TransferError


def test_an_interruption_does_not_wait_for_a_thread_that_waits() -> None:
    released, ended = threading.Event(), threading.Event()
    daemons = []

    def wait(_: int, __: Counter, ___: threading.Event) -> None:
        daemons.append(threading.current_thread().daemon)
        os.kill(os.getpid(), signal.SIGINT)
        released.wait(600)
        ended.set()

    try:
        with pytest.raises(KeyboardInterrupt):
            move_all([1], wait, workers=1, progress=RecordingProgress(), what="pull", total_bytes=1)
        assert not ended.is_set()
        assert daemons == [True], "the end of the process does not wait for it either"
    finally:
        released.set()


def test_the_first_error_ends_the_other_threads() -> None:
    started = threading.Barrier(3)

    def work(item: int, counter: Counter, stopping: threading.Event) -> None:
        started.wait(60)
        if item == 1:
            raise TransferError("broken")
        assert stopping.wait(600)

    with pytest.raises(TransferError, match="broken"):
        move_all(
            [0, 1, 2, 3, 4],
            work,
            workers=3,
            progress=RecordingProgress(),
            what="pull",
            total_bytes=None,
        )
