"""A training step dispatches about as many operations as a loop that is written by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("operations_worker.py")


@pytest.mark.parametrize("world", [1, 2])
def test_a_step_has_at_most_a_tenth_more_operations_than_by_hand(
    world: int, tmp_path: Path
) -> None:
    command = [sys.executable, WORKER, str(world), str(tmp_path)]
    counts = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert counts["by_hand"] > 250  # the network has 14 convolutions with batch norm
    assert counts["ours"] <= 1.1 * counts["by_hand"], counts
