"""A run directory, and what resuming must not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.toys import make_run

from distinit.pipeline.training.run_dir import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "run")


CurveOf = Callable[[RunDirectory], list[tuple[int, float, float]]]


@pytest.fixture
def curve_of() -> CurveOf:
    """(step, loss, learning rate) of every metric line: what resuming must not change."""
    return lambda run: [(m["step"], m["loss"], m["learning_rate"]) for m in run.read_metrics()]
