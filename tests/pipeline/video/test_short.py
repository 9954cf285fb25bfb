"""Short videos that share an ffmpeg give what each gives alone, or nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.processes import children
from helpers.videos import H264, make_video, remake
from numpy.typing import NDArray

from distinit.pipeline.video import View, open_video, short
from distinit.pipeline.video.blocks import FrameBlock
from distinit.pipeline.video.short import DecodedVideo, ShortDecode, runs_of
from distinit.schemas.video import DecodeConfig

CONFIG = DecodeConfig(deadline_seconds=60, stall_seconds=30)
VIEWS = {"source": View.source(), "small": View.short_edge(32)}
VIDEOS = {
    "a.mp4": H264,
    "b.mkv": (*H264, "-vf", "setpts=2*PTS"),
    "c.avi": ("-c:v", "mpeg4"),
    "d.webm": ("-c:v", "libvpx"),
    "e.gif": (),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of different lengths and sizes, in different containers."""
    root = tmp_path_factory.mktemp("videos")
    for seed, (name, args) in enumerate(VIDEOS.items()):
        make_video(root / name, frames=7 + seed, size=(64 + 16 * seed, 48), seed=seed, args=args)
    return root


def read(paths: Sequence[Path], config: DecodeConfig = CONFIG) -> list[DecodedVideo | None] | None:
    with ShortDecode(paths, VIEWS, config, 5) as together:
        return together.read()


def contents(blocks: Sequence[FrameBlock]) -> list[tuple[int, dict[str, NDArray[np.generic]]]]:
    return [
        (block.first_index, {"pts": block.pts_N, "hash": block.hash_N, **block.views})
        for block in blocks
    ]


def check_as_alone(path: Path, found: DecodedVideo | None) -> None:
    assert found is not None
    with open_video(path, VIEWS, CONFIG, block_frames=5) as stream:
        expected = list(stream)
        assert (found.time_base, found.summary) == (stream.time_base, stream.summary)
    np.testing.assert_equal(contents(found.blocks), contents(expected))


def test_every_video_has_the_frames_times_hashes_and_summary_that_it_has_alone(root: Path) -> None:
    paths = [root / name for name in VIDEOS]
    videos = read(paths)
    assert videos is not None
    for path, found in zip(paths, videos, strict=True):
        check_as_alone(path, found)


def test_with_a_damaged_video_none_is_given(root: Path, tmp_path: Path) -> None:
    """A message does not always say of which video it is."""
    whole = (root / "a.mp4").read_bytes()
    at = whole.index(b"mdat") + len(whole) // 3
    (tmp_path / "a.mp4").write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
    assert read([root / "b.mkv", tmp_path / "a.mp4"]) is None


def test_a_video_that_is_cut_without_a_message_is_not_given(root: Path, tmp_path: Path) -> None:
    whole = (root / "e.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(whole[:-1])
    videos = read([tmp_path / "cut.gif", root / "b.mkv"])
    assert videos is not None
    assert videos[0] is None
    check_as_alone(root / "b.mkv", videos[1])


def test_a_video_with_a_second_stream_is_not_given(root: Path, tmp_path: Path) -> None:
    options = ("-map", "0:v", "-map", "0:v", "-c", "copy")
    two = remake(root / "a.mp4", tmp_path / "two.mkv", *options)
    videos = read([two, root / "a.mp4"])
    assert videos is not None
    assert videos[0] is None
    check_as_alone(root / "a.mp4", videos[1])


@pytest.mark.parametrize(
    ("config", "given"),
    [
        (CONFIG.model_copy(update={"max_frames": 8}), [True, True, False]),
        (CONFIG.model_copy(update={"max_pixels": 64 * 48}), None),
    ],
)
def test_a_video_that_exceeds_a_limit_is_not_given(
    root: Path, config: DecodeConfig, given: list[bool] | None
) -> None:
    videos = read([root / "a.mp4", root / "b.mkv", root / "c.avi"], config)
    found = None if videos is None else [video is not None for video in videos]
    assert found == given


def test_no_video_is_given_if_together_they_need_too_much_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short, "_MAX_BYTES", 64 * 48 * 3 * 7)
    before = children()
    assert read([root / "a.mp4", root / "b.mkv"]) is None
    assert children() - before == set()


def test_stopping_ends_ffmpeg_and_the_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ffmpeg_exe: str
) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *rawvideo*file:*|*file:*rawvideo*) exec sleep 600;; esac\n'
        f'exec {ffmpeg_exe} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("DISTINIT_FFMPEG", str(script))
    before = children()
    with ShortDecode([root / "a.mp4", root / "b.mkv"], VIEWS, CONFIG, 5) as together:
        stopper = threading.Timer(0.2, together.stop)
        stopper.start()
        assert together.read() is None
        stopper.join()
    assert children() - before == set()


def test_runs_keep_the_order_and_leave_some_items_alone() -> None:
    runs = runs_of([2, 4, 6, 8, 1, 10, 3], lambda number: number % 2 == 0, 3)
    assert list(runs) == [[2, 4, 6], [8], [1], [10], [3]]
