"""Readers may use a share of the file descriptors that the process may open."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from distinit.pipeline.open_files import files_at_once
print(files_at_once(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (1024, 20000, "2048 16384"),
        (1024, 1024, "256 1024"),
        (256, 256, "64 256"),
        (18000, 20000, "2048 18000"),
    ],
)
def test_the_limit_is_raised_and_shared(soft: int, hard: int, expected: str) -> None:
    limit = f"ulimit -Sn {soft} && ulimit -Hn {hard} && exec '{sys.executable}' -c '{PROGRAM}'"
    found = subprocess.run(["bash", "-c", limit], capture_output=True, text=True, check=True)
    assert found.stdout.split() == expected.split()
