"""An ffmpeg that reads slowly, for tests of time limits."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def slow_ffmpeg(tmp_path: Path, ffmpeg_exe: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real ffmpeg, but reading its input at playback speed."""
    script = tmp_path / "slow-ffmpeg"
    script.write_text(f'#!/bin/sh\nexec "{ffmpeg_exe}" -re "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("DISTINIT_FFMPEG", str(script))
    return script
