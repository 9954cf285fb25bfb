"""A small frame store made of smooth synthetic frames."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.frame_stores import DIGESTS, smooth_frames

from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.frames import FrameGeometry


@pytest.fixture
def writer(tmp_path: Path) -> FrameStoreWriter:
    return FrameStoreWriter(tmp_path / "store", FrameGeometry(), "1" * 64)


@pytest.fixture
def store_root(writer: FrameStoreWriter, tmp_path: Path) -> Path:
    """Two units: videos a (12 frames) and the first 8 frames of b; then 4 more of b, and c (5)."""
    with writer.open_unit(0) as unit:
        unit.append("a", DIGESTS["a"], 0, smooth_frames(12), 10.0)
        unit.append("b", DIGESTS["b"], 0, smooth_frames(8), 25.0)
        unit.commit()
    with writer.open_unit(1) as unit:
        unit.append("b", DIGESTS["b"], 8, smooth_frames(4, first=8), 25.0)
        unit.append("c", DIGESTS["c"], 0, smooth_frames(5, height=20, width=30), 0.0)
        unit.commit()
    writer.finalise([0, 1])
    return tmp_path / "store"
