"""The chaos benchmark on few videos: kills at random times change no digest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


@pytest.mark.timeout(600)
def test_kills_at_random_times_change_no_digest() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "12", "--videos", "8", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    outcome = json.loads(ended.stdout)
    assert sum(outcome["kills"].values()) == 12
    assert outcome["kills"].keys() == {"driver", "ffmpeg", "interrupt"}
    assert outcome["caches"] == outcome["equal"] >= 1
    assert outcome["problems"] == []
    assert isinstance(
        outcome["slowest_orphan_seconds"], float
    )  # its size is measured by the benchmark
