"""Children of a killed process end, even if they do not check for it themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

OWNER = """
import subprocess, sys, time
from distinit.pipeline.compute.orphans import watch_over_children
before = subprocess.Popen(["sleep", "600"])
watch_over_children()
watch_over_children()
# A shell in between, as Ray's raylet is: the sleep is a child of the shell.
after = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE)
print(before.pid, after.pid, int(after.stdout.readline()), flush=True)
{end}
"""


def alive(pid: int) -> bool:
    """Whether process ``pid`` is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    """Whether process ``pid`` ends soon; on a busy machine that may take a while."""
    deadline = time.monotonic() + 120
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")
@pytest.mark.parametrize("how", ["killed", "done"])
def test_children_end_with_their_owner_and_older_ones_do_not(how: str) -> None:
    program = OWNER.format(end="time.sleep(600)" if how == "killed" else "sys.exit(0)")
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        before, shell, sleep = (int(word) for word in owner.stdout.readline().split())
        lived = [alive(pid) for pid in (before, shell, sleep)]
    finally:
        if how == "killed":
            owner.kill()
        owner.wait()
        owner.stdout.close()
    try:
        assert how == "done" or lived == [True, True, True]
        assert ends(shell)
        assert ends(sleep)
        assert alive(before)  # started before the call
    finally:
        os.kill(before, signal.SIGKILL)
