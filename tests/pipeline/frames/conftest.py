"""Small frame stores made of smooth synthetic frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.base import sha256_of
from distinit.schemas.frames import FrameGeometry

DIGESTS = {"a": "aa" * 32, "b": "bb" * 32, "c": "cc" * 32}


def smooth_frames(count: int, *, first: int = 0, height: int = 32, width: int = 48) -> np.ndarray:
    """uint8 [N, H, W, 3]; frame i has a grey level of its own, 2 * (first + i), plus a ramp."""
    ramp_HW = np.add.outer(np.arange(height), np.arange(width))
    level_N = 2 * (first + np.arange(count))
    frames_NHW = level_N[:, None, None] + ramp_HW
    return np.repeat(frames_NHW[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)


def alter(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a sealed record as a stranger would: its seal fits what it says then."""
    record = json.loads(path.read_text())
    change(record)
    record["seal"] = sha256_of({name: value for name, value in record.items() if name != "seal"})
    path.write_text(json.dumps(record))


def set_rows_per_batch(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Batches of few rows, for stores of few frames."""
    for module in ("rows", "commits", "reader"):
        monkeypatch.setattr(f"distinit.pipeline.frames.{module}.ROWS_PER_BATCH", rows)


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
