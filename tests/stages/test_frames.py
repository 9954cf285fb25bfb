"""The stage lists videos, builds their frame store, and reports failures."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from helpers.videos import make_video

from distinit.pipeline.progress import LogProgress
from distinit.schemas.errors import ConfigError
from distinit.schemas.frames import FramesConfig
from distinit.stages.frames import build_frames


def test_result_counts_frames_and_names_failures(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "a.mp4", frames=7)
    (tmp_path / "videos" / "empty.mp4").touch()
    config = FramesConfig(videos=str(tmp_path / "videos"), out=str(tmp_path / "store"))
    lines = io.StringIO()
    result = build_frames(config, progress=LogProgress(lines))
    assert lines.getvalue().splitlines()[0] == "frames: 0 of 2 videos"
    assert "failed 1  ended" in lines.getvalue()
    assert (result.videos, result.frames) == (1, 7)
    assert list(result.failed) == ["empty.mp4"]
    assert "empty" in result.failed["empty.mp4"]
    assert "1 video failed" in result.summary()
    assert build_frames(config).model_copy(update={"seconds": result.seconds}) == result


def test_a_store_inside_another_is_refused(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "a.mp4", frames=7)
    store = tmp_path / "store"
    build_frames(FramesConfig(videos=str(tmp_path / "videos"), out=str(store)))
    with pytest.raises(ConfigError, match="nothing else is written there"):
        build_frames(FramesConfig(videos=str(tmp_path / "videos"), out=str(store / "more")))
    assert not (store / "more").exists()
