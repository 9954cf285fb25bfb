"""The frame store of a dataset of two videos, one of which cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.frames import FrameGeometry


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    """Video ``id-a`` with a digest of letters a; ``id-b`` could not be decoded."""
    writer = FrameStoreWriter(tmp_path / "store", FrameGeometry(), "0" * 64)
    with writer.open_unit(0) as unit:
        unit.append("id-a", "a" * 64, 0, np.zeros((2, 128, 171, 3), np.uint8), 10.0)
        unit.fail_video("id-b", "b" * 64, "b.mp4: truncated")
        unit.commit()
    writer.finalise([0])
    return FrameStore.open(tmp_path / "store")
