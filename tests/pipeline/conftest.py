"""Caches and a frame store that the tests of training and distillation share."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.sources import FRAMES, write_cache, write_frames


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``one``, ``two``, ``sparse``, ``features``: caches; ``frames``: their frame store."""
    root = tmp_path_factory.mktemp("stored")
    write_cache(root / "one", ("alpha",))
    write_cache(root / "two", ("alpha", "beta"))
    write_cache(root / "sparse", ("alpha",), every=9)
    write_cache(root / "features", ("alpha",), target="features")
    write_frames(root / "frames", {n: f for n, f in FRAMES.items() if n != "bad"})
    return root
