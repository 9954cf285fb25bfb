"""Starts processes that do not outlive this one, however this one ends.

Linux can kill a child when its parent dies (PR_SET_PDEATHSIG), but "parent" means the *thread*
that started it. So all processes are started by one thread that lives as long as this process.
Where util-linux's ``setpriv`` is missing, an orphaned ffmpeg still ends at its next write, because
the read ends of its pipes are closed when this process ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import IO

__all__ = ["spawn"]

_lock = threading.Lock()
_starter: ThreadPoolExecutor | None = None


def spawn(
    argv: Sequence[str], *, stderr: IO[bytes], pass_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Start ``argv`` without stdin and stdout; it is killed when this process dies.

    It gets a separate process group, so that Ctrl-C in a terminal reaches only this process, which
    then ends the child. Raises OSError if ``argv`` cannot be executed.
    """
    starting: Future[subprocess.Popen[bytes]] = Future()
    command = [*_die_with_parent(), *argv]
    try:
        _starter_thread().submit(_start, starting, command, stderr, tuple(pass_fds))
        return starting.result()
    except BaseException:  # Ctrl-C while the process starts: the caller cannot end it
        starting.add_done_callback(_end_started)
        raise


def _start(
    starting: Future[subprocess.Popen[bytes]],
    command: Sequence[str],
    stderr: IO[bytes],
    pass_fds: Sequence[int],
) -> None:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=pass_fds,
            process_group=0,
        )
    except BaseException as error:
        starting.set_exception(error)
    else:
        starting.set_result(process)


def _end_started(starting: Future[subprocess.Popen[bytes]]) -> None:
    if starting.exception() is None:
        process = starting.result()
        process.kill()
        process.wait()


def _starter_thread() -> ThreadPoolExecutor:
    global _starter
    with _lock:
        if _starter is None:
            _starter = ThreadPoolExecutor(1, thread_name_prefix="ffmpeg-starter")
        return _starter


def _forget_starter() -> None:
    # A forked child inherits the executor object but not its thread.
    global _lock, _starter
    _lock, _starter = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_starter)


@lru_cache(maxsize=1)
def _die_with_parent() -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    prefix = (setpriv, "--pdeathsig", "KILL", "--")
    # busybox also has a setpriv, but without this option.
    works = subprocess.run([*prefix, setpriv, "--version"], capture_output=True, check=False)
    return prefix if works.returncode == 0 else ()
