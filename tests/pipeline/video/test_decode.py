"""Decoded frames, timestamps and sizes against PyAV, an independent reader."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from distinit.pipeline.video import DecodeSummary, View, open_video
from distinit.schemas.video import DecodeConfig

CONFIG = DecodeConfig(deadline_seconds=60, stall_seconds=30)
SOURCE = {"source": View.source()}


def decode(
    path: Path, views: dict[str, View] = SOURCE, config: DecodeConfig = CONFIG, block: int = 5
) -> tuple[DecodeSummary, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Summary, pts_N, hash_N and the views of a whole video."""
    with open_video(path, views, config, block_frames=block) as stream:
        blocks = list(stream)
    assert stream.summary is not None
    assert [b.first_index for b in blocks] == list(range(0, stream.summary.frame_count, block))
    pts_N = np.concatenate([b.pts_N for b in blocks])
    hash_N = np.concatenate([b.hash_N for b in blocks])
    pixels = {name: np.concatenate([b.views[name] for b in blocks]) for name in views}
    return stream.summary, pts_N, hash_N, pixels


def by_pyav(path: Path) -> tuple[list[int], Fraction, list[np.ndarray]]:
    """Timestamps, time base and RGB frames (not rotated)."""
    with av.open(f"file:{path}") as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        pixels = [frame.to_ndarray(format="rgb24") for frame in frames]
        return [frame.pts for frame in frames], stream.time_base, pixels


def transcode(exe: str, source: Path, target: Path, *args: str, before: Sequence[str] = ()) -> Path:
    argv = [exe, "-v", "error", "-nostdin", "-y", *before, "-i", f"file:{source}", *args]
    subprocess.run([*argv, f"file:{target}"], check=True)
    return target


def test_frames_and_timestamps_equal_pyav(tmp_path: Path, make_video: Any) -> None:
    path = make_video(tmp_path / "a.mp4", frames=23)
    expected_pts, time_base, expected = by_pyav(path)
    summary, pts_N, hash_N, pixels = decode(path)
    assert summary == DecodeSummary(23, 64, 48, str(time_base), 2.3, 10.0)
    assert pts_N.tolist() == expected_pts
    assert pts_N.dtype == np.int64
    assert hash_N.dtype == np.uint64
    np.testing.assert_array_equal(pixels["source"], np.stack(expected))
