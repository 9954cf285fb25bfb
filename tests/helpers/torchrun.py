"""Starts the ``distinit`` command in the processes of torchrun, and ends all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.processes import marked_by

from distinit.schemas.base import Record

__all__ = ["MARK", "ended", "launched", "lines_of", "written"]

MARK = "DISTINIT_TEST_MARK"
"""Environment variable of the processes of a launch; its value is the folder of the launch."""


@contextmanager
def launched(
    folder: Path, command: str, *arguments: str, processes: int = 2
) -> Iterator[subprocess.Popen[str]]:
    """The process of torchrun for ``distinit COMMAND``; stderr of rank R is in ``RANK-R``.

    All processes have ended afterwards.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node", str(processes), "--log-dir", str(folder / "logs")]
    launcher += ["--redirects", "3", "-m", "distinit.cli", command]
    process = subprocess.Popen(
        [*launcher, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=os.environ | {MARK: str(folder)},
    )
    try:
        yield process
    finally:
        for pid in marked_by(MARK, str(folder)):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def lines_of(folder: Path, rank: int, stream: str = "stderr") -> list[str]:
    """The lines that a rank has printed."""
    (path,) = (folder / "logs").glob(f"*/attempt_0/{rank}/{stream}.log")
    return path.read_text().splitlines()


def written(config: Record, folder: Path) -> list[str]:
    """Write a configuration to ``folder``; the options that name it."""
    file = folder / "config.yaml"
    file.write_text(config.model_dump_json())  # JSON is YAML
    return ["--config", str(file)]


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a launch: exit code and output of torchrun."""
    output, _ = process.communicate(timeout=300)
    return process.returncode, output
