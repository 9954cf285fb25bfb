"""A few damaged and forged caches: no wrong values, no traceback, no hang."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


@pytest.mark.timeout(600)
def test_a_dozen_changed_caches_are_refused_or_read_correctly() -> None:
    command = [sys.executable, str(SCRIPT), "--target", "cache", "--cases", "12", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    outcome = json.loads(ended.stdout)
    assert outcome["bad"] == []
    assert {sum(counts.values()) for counts in outcome["counts"].values()} == {12}
    assert outcome["counts"]["verify deep"]["refused"] >= 10
