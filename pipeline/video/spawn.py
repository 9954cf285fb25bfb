"""Starting a process that does not outlive this one, however this one ends.

Linux can kill a child when its parent dies (PR_SET_PDEATHSIG), but by parent it means the
*thread* that started it. So one thread, which lives as long as the process, starts them all.
Where util-linux's ``setpriv`` is missing, an orphaned ffmpeg still ends at its next write:
the reading ends of its pipes died with us.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import IO

__all__ = ["spawn"]

_lock = threading.Lock()
_starter: ThreadPoolExecutor | None = None


def spawn(
    argv: Sequence[str], *, stderr: IO[bytes], pass_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Start ``argv`` with no stdin or stdout; it is killed when this process dies.

    It has a process group of its own: Ctrl-C in a terminal is for us, who then end it.
    """
    return (
        _starter_thread()
        .submit(
            subprocess.Popen,
            [*_die_with_parent(), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            process_group=0,
        )
        .result()
    )


def _starter_thread() -> ThreadPoolExecutor:
    global _starter
    with _lock:
        if _starter is None:
            _starter = ThreadPoolExecutor(1, thread_name_prefix="ffmpeg-starter")
        return _starter


def _forget_starter() -> None:
    # A forked child inherits the object but not the thread.
    global _lock, _starter
    _lock, _starter = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_starter)


@lru_cache(maxsize=1)
def _die_with_parent() -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    prefix = (setpriv, "--pdeathsig", "KILL", "--")
    # busybox has a setpriv too, which does not know the option.
    works = subprocess.run([*prefix, setpriv, "--version"], capture_output=True, check=False)
    return prefix if works.returncode == 0 else ()
