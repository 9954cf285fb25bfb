"""Synthetic frames and a store of them, and functions that change the records of a frame store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.base import sha256_of
from distinit.schemas.frames import FrameGeometry

DIGESTS = {"a": "aa" * 32, "b": "bb" * 32, "c": "cc" * 32}
GREY_VIDEOS = {
    "bright": [230] * 12,
    "dark": [20] * 2,  # shorter than a clip of four frames: its frames repeat
    "turns": [20] * 8 + [230] * 4,
}
"""Video id -> grey level of each frame."""


def smooth_frames(count: int, *, first: int = 0, height: int = 32, width: int = 48) -> np.ndarray:
    """uint8 [N, H, W, 3]; frame i has the gray level 2 * (first + i), plus a ramp."""
    ramp_HW = np.add.outer(np.arange(height), np.arange(width))
    level_N = 2 * (first + np.arange(count))
    frames_NHW = level_N[:, None, None] + ramp_HW
    return np.repeat(frames_NHW[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)


def grey_store(root: Path) -> FrameStore:
    """A store of GREY_VIDEOS; frames have 24 x 32 pixels of one grey level."""
    writer = FrameStoreWriter(root, FrameGeometry(), "0" * 64)
    with writer.open_unit(0) as unit:
        for name, levels in GREY_VIDEOS.items():
            frames = np.empty((len(levels), 24, 32, 3), np.uint8)
            frames[:] = np.array(levels, np.uint8)[:, None, None, None]
            unit.append(name, hashlib.sha256(name.encode()).hexdigest(), 0, frames, 10.0)
        unit.commit()
    writer.finalise([0])
    return FrameStore.open(root)


def alter(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a sealed record as an attacker would, with a seal that matches the new content."""
    record = json.loads(path.read_text())
    change(record)
    record["seal"] = sha256_of({name: value for name, value in record.items() if name != "seal"})
    path.write_text(json.dumps(record))


def set_rows_per_batch(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Use small batches, so that a store of few frames has several."""
    for module in ("rows", "commits", "reader"):
        monkeypatch.setattr(f"distinit.pipeline.frames.{module}.ROWS_PER_BATCH", rows)
