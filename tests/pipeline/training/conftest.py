"""A run directory for the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.toys import make_run

from distinit.pipeline.training.run_dir import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "run")
