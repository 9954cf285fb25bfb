"""Fixtures of the video tests: another decoder (PyAV) to compare with, and edited files."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from distinit.pipeline.video import DecodeSummary, View, open_video
from distinit.schemas.video import DecodeConfig

CONFIG = DecodeConfig(deadline_seconds=60, stall_seconds=30)
SOURCE = {"source": View.source()}

Decoded = tuple[DecodeSummary, np.ndarray, np.ndarray, dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def decode() -> Callable[..., Decoded]:
    """``decode(path, views, config, block)`` -> summary, pts_N, hash_N, views of a whole video."""

    def run(
        path: Path,
        views: dict[str, View] = SOURCE,
        config: DecodeConfig = CONFIG,
        block: int = 5,
    ) -> Decoded:
        with open_video(path, views, config, block_frames=block) as stream:
            blocks = list(stream)
        assert stream.summary is not None
        assert [b.first_index for b in blocks] == list(range(0, stream.summary.frame_count, block))
        pts_N = np.concatenate([b.pts_N for b in blocks])
        hash_N = np.concatenate([b.hash_N for b in blocks])
        pixels = {name: np.concatenate([b.views[name] for b in blocks]) for name in views}
        return stream.summary, pts_N, hash_N, pixels

    return run


@pytest.fixture(scope="session")
def by_pyav() -> Callable[[Path], tuple[list[int], Fraction, np.ndarray]]:
    """``by_pyav(path)`` -> timestamps, time base and RGB frames [N, H, W, 3] (not rotated)."""

    def run(path: Path) -> tuple[list[int], Fraction, np.ndarray]:
        with av.open(f"file:{path}") as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
            return [frame.pts for frame in frames], stream.time_base, pixels

    return run


@pytest.fixture(scope="session")
def remake(ffmpeg_exe: str) -> Callable[..., Path]:
    """``remake(source, target, *options, before=())`` converts a file with ffmpeg."""

    def run(source: Path, target: Path, *options: str, before: tuple[str, ...] = ()) -> Path:
        argv = [ffmpeg_exe, "-v", "error", "-nostdin", "-y", *before, "-i", f"file:{source}"]
        subprocess.run([*argv, *options, f"file:{target}"], check=True)
        return target

    return run


@pytest.fixture
def slow_ffmpeg(tmp_path: Path, ffmpeg_exe: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real ffmpeg, which reads its input no faster than it would be played."""
    script = tmp_path / "slow-ffmpeg"
    script.write_text(f'#!/bin/sh\nexec "{ffmpeg_exe}" -re "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("DISTINIT_FFMPEG", str(script))
    return script


@pytest.fixture(scope="session")
def ends_within() -> Callable[[int, float], bool]:
    """``ends_within(pid, seconds)``: whether that process ends within this time."""

    def run(pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            try:
                os.kill(pid, 0)
                if " Z " in Path(f"/proc/{pid}/stat").read_text():
                    return True
            except (ProcessLookupError, FileNotFoundError):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)

    return run
