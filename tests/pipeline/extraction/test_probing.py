"""Short files are probed together, with the results that each has alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.videos import H264, make_video

from distinit.pipeline.corpus.listing import list_corpus
from distinit.pipeline.extraction import probing
from distinit.pipeline.extraction.probing import Prober, plan_videos, probe_rows
from distinit.schemas.video import DecodeConfig, SamplingConfig

VIDEOS = {
    "a.mp4": (*H264, "-movflags", "+faststart"),
    "b.mkv": H264,
    "c.avi": ("-c:v", "mpeg4"),
    "d.webm": ("-c:v", "libvpx"),
    "e.mov": (*H264, "-movflags", "+frag_keyframe", "-g", "5"),
    "f.gif": (),
    "g.ts": ("-c:v", "mpeg2video", "-r", "25"),
}
EVERY_THIRD = SamplingConfig(mode="stride", stride=3)


@pytest.fixture
def starts(tmp_path: Path, ffmpeg_exe: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one line per ffmpeg process that was started to probe; one thread probes."""
    script, log = tmp_path / "ffmpeg", tmp_path / "starts"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *file:*) echo x >> {log};; esac\nexec {ffmpeg_exe} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("DISTINIT_FFMPEG", str(script))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    return log


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven videos in different containers, and one file that is not a video."""
    root = tmp_path_factory.mktemp("videos")
    for seed, (name, args) in enumerate(VIDEOS.items()):
        make_video(root / name, frames=10 + seed, seed=seed, args=args)
    (root / "h.mp4").write_bytes(bytes(range(256)) * 8)
    return root


def check(root: Path, names: Sequence[str], decode: DecodeConfig, starts: Path) -> int:
    """Compare the plan of some videos with that of each alone; returns the number of starts."""
    corpus = list_corpus(str(root))
    files = [file for file in corpus.files if file.path in names]
    planned = list(plan_videos(Prober(decode, EVERY_THIRD), corpus.source, files))
    count = starts.read_text().count("x")
    assert [video.file for video in planned] == files
    alone = [probe_rows(root / file.path, decode, EVERY_THIRD) for file in files]
    assert [(video.probe, video.rows) for video in planned] == alone
    return count


def test_one_ffmpeg_probes_files_of_all_containers(root: Path, starts: Path) -> None:
    assert check(root, list(VIDEOS), DecodeConfig(), starts) == 1


def test_a_file_that_ffmpeg_cannot_read_is_isolated_by_halving(root: Path, starts: Path) -> None:
    """Eight files; then 4 + 4, 2 + 2 and 1 + 1."""
    assert check(root, [*VIDEOS, "h.mp4"], DecodeConfig(), starts) == 7


def test_a_file_that_exceeds_a_limit_is_probed_again_alone(root: Path, starts: Path) -> None:
    assert check(root, list(VIDEOS), DecodeConfig(max_frames=12), starts) == 1 + 4


def test_files_are_probed_alone_where_their_messages_matter(root: Path, starts: Path) -> None:
    assert check(root, ["a.mp4", "b.mkv"], DecodeConfig(damaged="fail"), starts) == 2


def test_large_files_are_probed_alone(
    root: Path, starts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, second, largest = sorted(VIDEOS, key=lambda name: (root / name).stat().st_size)
    monkeypatch.setattr(probing, "_SHORT_BYTES", (root / second).stat().st_size)
    position = list(VIDEOS).index(largest)
    runs = [position, 1, len(VIDEOS) - 1 - position]
    assert check(root, list(VIDEOS), DecodeConfig(), starts) == sum(run > 0 for run in runs)
