"""The cache holds exactly the requested rows: K per video, or at most F per second."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.videos import make_video

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import ExtractResult, extract

H264 = ("-c:v", "libx264", "-g", "300", "-bf", "2", "-pix_fmt", "yuv420p")


def run(videos: Path, out: Path, *teachers: str, **changes: Any) -> ExtractResult:
    values = {
        "videos": str(videos),
        "teachers": [{"name": "null", "id": name} for name in teachers or ("null",)],
        "cache": str(out / "cache"),
        "batch_size": 8,
    }
    return extract(ExtractConfig.model_validate(values | changes))


def per_video(count: int) -> dict[str, Any]:
    return {"mode": "per_video", "per_video": count}


def rows_by_path(out: Path) -> dict[str, list[tuple[int, Fraction]]]:
    """Verify the cache; path -> (frame index, time in seconds) of the rows of the video."""
    assert verify_cache(out / "cache").problems == ()
    cache = TargetCache.open(out / "cache")
    path_of = {row["video_id"]: row["path"] for row in cache.videos.to_pylist()}
    found: dict[str, list[tuple[int, Fraction]]] = {path: [] for path in path_of.values()}
    for file in sorted((out / "cache" / "frames").iterdir()):
        for row in pq.read_table(file).to_pylist():
            time = row["pts"] * Fraction(row["time_base"])
            found[path_of[row["video_id"]]].append((row["frame_index"], time))
    return found


@pytest.fixture(scope="module")
def odd(ffmpeg_exe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with frames hidden by an edit list, one with a lost frame, and a very short one."""
    root = tmp_path_factory.mktemp("odd")
    long = make_video(root.parent / "long.mp4", frames=60, rate=30, args=H264)
    cut = [ffmpeg_exe, "-v", "error", "-nostdin", "-y", "-ss", "1.4", "-i", str(long)]
    subprocess.run([*cut, "-c", "copy", str(root / "edited.mp4")], check=True)
    lost = make_video(root / "lost.mkv", 30, args=("-c:v", "libx264", "-bf", "0"))
    data = bytearray(lost.read_bytes())
    at = data.rfind(b"\xa3", 0, len(data) * 3 // 4) + 12  # within a block of a late frame
    data[at : at + 40] = b"\xff" * 40
    lost.write_bytes(data)
    make_video(root / "short.mp4", frames=3)
    return root


@pytest.mark.parametrize("count", [1, 5, 20])
def test_every_video_has_k_rows_or_all_its_frames_if_it_has_fewer(
    odd: Path, tmp_path: Path, count: int
) -> None:
    result = run(odd, tmp_path, sampling=per_video(count), frames=str(tmp_path / "frames"))
    videos = {r["path"]: r for r in TargetCache.open(tmp_path / "cache").videos.to_pylist()}
    plan = pq.read_table(tmp_path / "cache" / "plan.parquet").to_pylist()
    probed = {row["path"]: row["probed_frames"] for row in plan}
    assert videos["edited.mp4"]["frame_count"] == probed["edited.mp4"] == 18
    assert videos["lost.mkv"]["frame_count"] < probed["lost.mkv"] == 30  # decoded twice
    assert result.failed == ()
    for path, rows in rows_by_path(tmp_path).items():
        frames = videos[path]["frame_count"]
        expected = min(count, frames)
        middles = [(2 * i + 1) * frames // (2 * expected) for i in range(expected)]
        assert [index for index, _ in rows] == middles, path
    store = FrameStore.open(tmp_path / "frames")
    assert {v.frame_count for v in store.videos.values()} == {
        video["frame_count"] for video in videos.values()
    }


def test_a_second_teacher_picks_the_same_rows(odd: Path, tmp_path: Path) -> None:
    run(odd, tmp_path, sampling=per_video(7))
    before = rows_by_path(tmp_path)
    result = run(odd, tmp_path, "second", sampling=per_video(7))
    assert result.complete
    assert rows_by_path(tmp_path) == before


def test_neither_batches_nor_blocks_change_the_rows(odd: Path, tmp_path: Path) -> None:
    digests = {
        run(odd, tmp_path / str(size), sampling=per_video(4), batch_size=size).content_digest
        for size in (1, 3, 32)
    }
    assert len(digests) == 1


@pytest.fixture(scope="module")
def uneven(ffmpeg_exe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames per second with a pause; 10 frames per second, then 60; and joined recordings."""
    root = tmp_path_factory.mktemp("uneven")
    source = make_video(root.parent / "source.mp4", frames=97, rate=30, args=H264)

    def retimed(name: str, when: str) -> None:
        argv = [ffmpeg_exe, "-v", "error", "-nostdin", "-y", "-i", str(source), "-vf"]
        argv += [f"setpts=({when})/TB", "-fps_mode", "passthrough", "-enc_time_base", "1/90000"]
        subprocess.run([*argv, "-c:v", "libx264", "-bf", "0", str(root / name)], check=True)

    retimed("pause.mp4", r"N/30+gt(N\,60)*100")
    retimed("faster.mp4", r"if(lt(N\,49)\,N/10\,4.9+(N-49)/60)")
    args = ("-c:v", "mpeg2video", "-r", "25")
    parts = [make_video(root.parent / f"{i}.ts", 50, rate=25, seed=i, args=args) for i in (1, 2)]
    (root / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    return root


@pytest.mark.parametrize("rate", [2, 12, 90])
def test_rows_per_second_of_presentation_time(uneven: Path, tmp_path: Path, rate: int) -> None:
    run(uneven, tmp_path, sampling={"mode": "fps", "fps": rate})
    rows = rows_by_path(tmp_path)
    for path in ("pause.mp4", "faster.mp4"):
        slots = [int((time - rows[path][0][1]) * rate) for _, time in rows[path]]
        assert len(set(slots)) == len(slots), path
    counts = {path: len(found) for path, found in rows.items()}
    if rate == 2:  # 61 frames in 2 s, 36 in 1.2 s; 49 in 4.9 s, 48 in .8 s; 2 s and 2 s
        assert counts["pause.mp4"] == 8
        assert counts["faster.mp4"] == 12
        assert counts["joined.ts"] in (8, 9)
    if rate == 90:  # every source is slower
        assert counts["pause.mp4"] == counts["faster.mp4"] == 97


def test_the_plan_reserves_rows_by_the_timestamps_of_the_packets(
    uneven: Path, tmp_path: Path
) -> None:
    run(uneven, tmp_path, sampling={"mode": "fps", "fps": 2})
    plan = pq.read_table(tmp_path / "cache" / "plan.parquet").to_pylist()
    reserved = {row["path"]: row["reserved_rows"] for row in plan}
    rows = rows_by_path(tmp_path)
    assert (reserved["pause.mp4"], reserved["faster.mp4"]) == (8, 12)
    # The times of joined recordings overlap: their rows were counted, then planned again.
    assert [row["path"] for row in plan].count("joined.ts") == 2
    assert reserved["joined.ts"] == len(rows["joined.ts"])
    spread = np.diff([index for index, _ in rows["joined.ts"]])
    assert spread.max() <= 13
