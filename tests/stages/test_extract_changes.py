"""Videos that change during a run, and runs that end before videos were planned again."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.progress import RecordingProgress
from helpers.videos import make_video

from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.extraction import probing
from distinit.pipeline.video.probe import VideoProbe, probe_video
from distinit.schemas.errors import CorpusError, TooManyFailuresError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.video import DecodeConfig
from distinit.stages.extract import ExtractResult, extract


def run(root: Path, out: str, *, progress: Any = None, **changes: Any) -> ExtractResult:
    values = {
        "videos": str(root / "videos"),
        "teachers": [{"name": "null"}],
        "cache": str(root / out / "cache"),
        "frames": str(root / out / "frames"),
        "unit_rows": 64,
    }
    return extract(ExtractConfig.model_validate(values | changes), progress=progress)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for seed, (name, frames) in enumerate({"a.mp4": 20, "b.mp4": 40, "c.mp4": 30}.items()):
        make_video(tmp_path / "videos" / name, frames=frames, seed=seed)
    return tmp_path / "videos"


@pytest.fixture
def probes_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe of b.mp4 finds a quarter of its frames, so that it must be planned again."""

    def lie(path: Path, config: DecodeConfig) -> VideoProbe:
        found = probe_video(path, config)
        if path.name != "b.mp4":
            return found
        count = found.packet_count // 4
        return replace(found, packet_count=count, pts_N=found.pts_N[:count])

    monkeypatch.setattr(probing, "probe_video", lie)


@pytest.mark.usefixtures("probes_lie")
def test_a_run_that_ends_before_a_video_is_planned_again_can_be_resumed(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(tmp_path, "undisturbed")
    assert (undisturbed.complete, undisturbed.frames) == (True, 90)

    def stop(writer: CacheWriter) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "replan_spilled", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "resumed")
    assert run(tmp_path, "resumed").content_digest == undisturbed.content_digest


@pytest.mark.usefixtures("probes_lie")
def test_a_run_that_stops_after_too_many_failures_can_be_resumed(
    videos: Path, tmp_path: Path
) -> None:
    (videos / "z.mp4").touch()
    undisturbed = run(tmp_path, "undisturbed", max_failed=1.0)
    with pytest.raises(TooManyFailuresError):
        run(tmp_path, "resumed", max_failed=0.0)
    resumed = run(tmp_path, "resumed", max_failed=1.0)
    assert (resumed.complete, resumed.content_digest) == (True, undisturbed.content_digest)


class ReplacesAVideo(RecordingProgress):
    """Replaces b.mp4 by another video once the corpus was hashed."""

    def __init__(self, videos: Path) -> None:
        super().__init__()
        self._videos = videos

    def start(self, description: str, total: float | None, unit: str, done: float = 0) -> None:
        if description == "extract":
            before = (self._videos / "b.mp4").stat()
            shutil.copyfile(self._videos / "c.mp4", self._videos / "b.mp4")
            os.utime(self._videos / "b.mp4", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        super().start(description, total, unit, done)


def test_a_video_that_is_replaced_during_the_run_is_not_stored_under_its_old_digest(
    videos: Path, tmp_path: Path
) -> None:
    result = run(tmp_path, "out", progress=ReplacesAVideo(videos), max_failed=1.0)
    assert {video.path: video.error for video in result.failed} == {
        "b.mp4": "changed while it was read"
    }
    assert result.frames == 50


def test_a_folder_that_lacks_most_videos_of_the_cache_changes_nothing(
    videos: Path, tmp_path: Path
) -> None:
    before = run(tmp_path, "out")
    (tmp_path / "wrong").mkdir()
    shutil.copy(videos / "a.mp4", tmp_path / "wrong" / "a.mp4")
    make_video(tmp_path / "wrong" / "new.mp4", frames=5, seed=9)
    with pytest.raises(CorpusError) as raised:
        run(tmp_path, "out", videos=str(tmp_path / "wrong"))
    assert "2 of the 3 videos of the cache" in raised.value.problem
    assert raised.value.found == "gone: b.mp4, c.mp4"
    assert "--set max_gone=1" in str(raised.value.remedy)
    after = run(tmp_path, "out")
    assert (after.content_digest, after.frames_done) == (before.content_digest, 0)
    kept = run(tmp_path, "out", videos=str(tmp_path / "wrong"), max_gone=1.0)
    assert (kept.videos, kept.gone) == (2, 2)
