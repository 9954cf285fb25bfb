"""A tiny corpus of real videos that the stage tests share; nothing may write into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

FRAME_COUNTS = {"a.mp4": 20, "b/c.mp4": 33, "b/d [1].mp4": 12, "e.mp4": 41, "long.mp4": 150}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """Five good videos (FRAME_COUNTS) and two broken ones."""
    root = tmp_path_factory.mktemp("corpus")
    for seed, (name, frames) in enumerate(FRAME_COUNTS.items()):
        make_video(root / name, frames=frames, seed=seed)
    (root / "empty.mp4").touch()
    whole = (root / "e.mp4").read_bytes()
    (root / "torn.mp4").write_bytes(whole[: len(whole) // 2])
    return root
