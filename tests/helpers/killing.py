"""Runs the ``distinit`` command in a process that ends itself with a signal at a certain file."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

# Every file or checkpoint is written under another name and then renamed, so that each rename is a
# moment at which the files on the disk change.
CODE = """
import os, re, signal, sys

number, pattern, moment, *arguments = sys.argv[1:]

def and_die(rename):
    def rename_and_die(source, target, **options):
        is_last = re.fullmatch(pattern, os.path.basename(target)) is not None
        if not (is_last and moment == "before"):
            rename(source, target, **options)
        if is_last:
            os.kill(os.getpid(), int(number))

    return rename_and_die

os.replace, os.rename = and_die(os.replace), and_die(os.rename)
from distinit.cli import main
main(arguments)
"""


def kill_at(
    pattern: str, moment: Literal["before", "after"], command: list[str], folder: Path
) -> None:
    """Run ``distinit COMMAND`` in ``folder`` until SIGKILL ends it.

    That is ``before`` or ``after`` the first file whose name matches ``pattern`` gets that name.
    """
    killed = _run(signal.SIGKILL, pattern, moment, command, folder)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def interrupt_at(pattern: str, command: list[str], folder: Path) -> tuple[int, str]:
    """Run ``distinit COMMAND``, which gets SIGINT (Ctrl-C) after a file has got its name.

    Returns its exit code, and what it printed on stderr.
    """
    ended = _run(signal.SIGINT, pattern, "after", command, folder)
    return ended.returncode, ended.stderr


def _run(
    number: signal.Signals, pattern: str, moment: str, command: list[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, str(int(number)), pattern, moment, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
