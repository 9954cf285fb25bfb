"""Damaged videos are kept or fail as configured, and every report names them with their damage."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers.videos import make_video

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.extraction.failures import damage_lines
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.frames import FramesConfig
from distinit.stages.cache_info import cache_info
from distinit.stages.extract import ExtractResult, extract
from distinit.stages.frames import build_frames

H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "10", "-g", "10")


def run(videos: Path, out: Path, **changes: Any) -> ExtractResult:
    values = {
        "videos": str(videos),
        "teachers": [{"name": "null"}],
        "cache": str(out / "cache"),
        "frames": str(out / "frames"),
    }
    return extract(ExtractConfig.model_validate(values | changes))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intact video, one with errors within frames, and one that is truncated."""
    root = tmp_path_factory.mktemp("damaged")
    make_video(root / "good.mp4", frames=12)
    bad = make_video(root / "bad.avi", 30, (160, 120), args=("-c:v", "mpeg4", "-g", "10"))
    data = bytearray(bad.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 16] = random.Random(0).randbytes(16)
    bad.write_bytes(data)
    cut = make_video(root / "cut.mkv", frames=40, size=(160, 120), args=H264)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 6 // 10])
    return root


def test_damaged_videos_are_kept_and_reported_everywhere(videos: Path, tmp_path: Path) -> None:
    result = run(videos, tmp_path)
    table = {r["path"]: r for r in pq.read_table(tmp_path / "cache/videos.parquet").to_pylist()}
    assert {row["status"] for row in table.values()} == {"ok"}
    frames = table["cut.mkv"]["frame_count"]
    assert 5 < frames < 40
    cut, bad = table["cut.mkv"]["damage"], table["bad.avi"]["damage"]
    assert cut.startswith(f"{frames} of about 40 frames; truncated: File ended prematurely")
    assert bad.startswith("all frames; ")
    assert table["good.mp4"]["damage"] is None
    assert (result.damaged, result.concealed) == ({"cut.mkv": cut}, {"bad.avi": bad})
    assert (result.videos, result.failed, result.complete) == (3, (), True)
    assert result.frames == result.rows == 42 + frames
    text = result.summary()
    assert text.startswith("3 of 3 videos (1 damaged), ")
    assert f"\n1 video kept although frames are or may be missing:\n  cut.mkv: {cut}\n" in text
    assert "\n1 video with all frames, some of them with errors" in text
    assert f"\n  bad.avi: {bad}\n" in text
    assert verify_cache(tmp_path / "cache").problems == ()
    assert cache_info(tmp_path / "cache").damaged == 1
    store = FrameStore.open(tmp_path / "frames")
    assert {v.frame_count for v in store.videos.values()} == {12, 30, frames}
    assert sorted(store.damage.values()) == sorted([cut, bad])
    again = run(videos, tmp_path)  # decodes nothing: the cache has the damage on record
    assert (again.frames_done, again.damaged, again.concealed) == (
        0,
        result.damaged,
        result.concealed,
    )
    assert again.content_digest == result.content_digest


def test_damaged_videos_fail_if_so_configured(videos: Path, tmp_path: Path) -> None:
    result = run(videos, tmp_path, decode={"damaged": "fail"})
    (failed,) = result.failed
    assert failed.path == "cut.mkv"
    assert failed.error.startswith("damaged: ")
    assert (result.frames, result.damaged, len(result.concealed)) == (42, {}, 1)
    assert TargetCache.open(tmp_path / "cache").manifest.corpus.damaged == 0
    assert "1 x damaged" in result.summary()


def test_building_a_frame_store_reports_what_is_missing(videos: Path, tmp_path: Path) -> None:
    values = {"videos": str(videos), "out": str(tmp_path / "frames")}
    result = build_frames(FramesConfig.model_validate(values))
    assert result.damaged.keys() == {"cut.mkv", "bad.avi"}
    assert "2 videos damaged, but in the store:" in result.summary()
    assert f"  cut.mkv: {result.damaged['cut.mkv']}" in result.summary()
    strict = {**values, "out": str(tmp_path / "strict"), "decode": {"damaged": "fail"}}
    result = build_frames(FramesConfig.model_validate(strict))
    assert (result.failed.keys(), result.damaged.keys()) == ({"cut.mkv"}, {"bad.avi"})


def test_a_second_teacher_gives_the_same_damage_report(videos: Path, tmp_path: Path) -> None:
    first = run(videos, tmp_path, frames=None)
    both = run(videos, tmp_path, frames=None, teachers=[{"name": "null", "id": "second"}])
    assert (both.complete, both.damaged) == (True, first.damaged)
    assert verify_cache(tmp_path / "cache").problems == ()


def test_damage_lines_show_the_first_videos_of_each_kind_and_count_the_rest() -> None:
    assert damage_lines({}, {}) == []
    assert damage_lines({"x\n": "1 of 2 frames"}, dict.fromkeys("edcba", "all frames; 1")) == [
        "1 video kept although frames are or may be missing:",
        "  x\\n: 1 of 2 frames",
        "5 videos with all frames, some of them with errors that the decoder conceals:",
        "  a: all frames; 1",
        "  b: all frames; 1",
        "  c: all frames; 1",
        "  ... 2 more; --json lists all",
    ]
