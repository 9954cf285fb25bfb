"""Where ``cache match --out`` may write: nowhere but to a new file or an older mapping file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distinit.schemas.errors import ConfigError
from distinit.schemas.matching import MatchConfig
from distinit.stages.match import match_cache


def run_match(videos: Path, out: Path) -> None:
    """The cache is not even opened before ``out`` is refused."""
    match_cache(MatchConfig(cache="nothing", videos=str(videos), out=str(out)))


def make_text(out: Path) -> None:
    out.write_text("thesis")


def make_link(out: Path) -> None:
    target = out.with_suffix(".target")
    target.write_text("thesis")
    out.symlink_to(target)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (make_text, ""),
        (make_link, "a link"),
        (Path.mkdir, "a folder"),
        (os.mkfifo, "a special file"),
    ],
)
def test_only_a_mapping_file_is_replaced(
    tmp_path: Path, make: Callable[[Path], None], found: str
) -> None:
    out = tmp_path / "clips.match"
    make(out)
    before = out.lstat()
    with pytest.raises(ConfigError, match="it is not replaced") as refused:
        run_match(tmp_path / "clips", out)
    assert found in str(refused.value.found)
    after = out.lstat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not (tmp_path / "clips.match.hashes").exists()


def test_nothing_is_written_among_the_videos(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    video = clips / "exact.mp4"
    video.write_bytes(b"video")
    (tmp_path / "link").symlink_to(clips)
    for out in (video, clips / "new.match", tmp_path / "link" / "new.match"):
        with pytest.raises(ConfigError, match="the folder of your videos"):
            run_match(clips, out)
    listed = tmp_path / "list.txt"
    listed.write_text("clips/exact.mp4")
    for out in (listed, video):
        with pytest.raises(ConfigError, match="it is not replaced"):
            run_match(listed, out)
    assert [path.name for path in clips.iterdir()] == ["exact.mp4"]
    assert video.read_bytes() == b"video"
