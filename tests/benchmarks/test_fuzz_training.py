"""A few of the damaged runs of ``fuzz.py --target training``; a full run takes an hour."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
OPERATIONS = {"student", "init", "resume", "runs"}


def test_damaged_runs_are_refused_or_read_correctly() -> None:
    command = [sys.executable, str(SCRIPT), "--target", "training", "--cases", "12", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    assert found["bad"] == []
    assert found["counts"].keys() == OPERATIONS
    assert all(sum(counts.values()) == 12 for counts in found["counts"].values())
    assert found["counts"]["student"]["refused"] > 0
