"""``benchmarks/cache.py``: a small simulated cache is opened and refused; rows are read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cache import OPENED, REFUSED, TEACHER, simulate

from distinit.pipeline.cache.reader import TargetCache
from distinit.schemas.errors import DistInitError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cache.py"


def test_every_action_opens_or_refuses_the_simulated_cache(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    simulate(root, 40_000)
    cache = TargetCache.open(root)
    assert cache.manifest.row_space.rows == 65_536  # two whole units
    assert cache.index.frame_index[257] == 1
    assert sorted(cache.teachers) == [TEACHER]
    before = {path: path.read_bytes() for path in root.rglob("*.json")}
    for action in OPENED.values():
        action(root)
    for action in REFUSED.values():
        with pytest.raises(DistInitError):
            action(root)
    assert before == {path: path.read_bytes() for path in root.rglob("*.json")}


def test_the_benchmark_measures_all_of_them() -> None:
    command = [sys.executable, str(SCRIPT), "--frames", "40000", "--units", "2"]
    command += ["--repetitions", "1", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    (opened,) = found["open"].values()
    assert opened.keys() == OPENED.keys() | REFUSED.keys()
    assert all(cell.keys() == {"seconds", "mib"} for cell in opened.values())
    for cell in found["read"].values():
        assert cell["ratio"] == pytest.approx(cell["zarr"] / cell["direct"])
