"""Short videos of a group are decoded together; the cache is the same as if each was alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.videos import make_video

from distinit.pipeline.extraction import short_videos
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import ExtractResult, extract

COUNT = 10
DAMAGED = "5.mp4"
PER_VIDEO = {"mode": "per_video", "per_video": 4}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips; zeroed bytes in one of them."""
    root = tmp_path_factory.mktemp("clips")
    for seed in range(COUNT):
        make_video(root / f"{seed}.mp4", frames=8 + seed, seed=seed)
    whole = (root / DAMAGED).read_bytes()
    at = whole.index(b"mdat") + 600
    (root / DAMAGED).write_bytes(whole[:at] + bytes(100) + whole[at + 100 :])
    return root


@pytest.fixture
def starts(tmp_path: Path, ffmpeg_exe: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one line per ffmpeg that was started to decode; a word for each input."""
    script, log = tmp_path / "ffmpeg", tmp_path / "starts"
    # One write per line: two that start together must not mix their words.
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *file:*rawvideo*) names=; for a; do case "$a" in file:*)\n'
        f'  names="$names ${{a##*/}}";; esac; done; echo "$names" >> {log};; esac\n'
        f'exec {ffmpeg_exe} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("DISTINIT_FFMPEG", str(script))
    return log


def run(corpus: Path, out: Path, **changes: Any) -> ExtractResult:
    values = {
        "videos": str(corpus),
        "teachers": [{"name": "null"}],
        "cache": str(out / "cache"),
        "frames": str(out / "frames"),
        "unit_rows": 1024,
        "decode": {"parallel_videos": 2},
    }
    return extract(ExtractConfig.model_validate(values | changes))


def inputs(log: Path) -> list[int]:
    """For each ffmpeg, the number of videos that it decoded; empties the log."""
    counts = [len(line.split()) for line in log.read_text().splitlines()]
    log.unlink()
    return sorted(counts)


@pytest.mark.parametrize("changes", [{}, {"sampling": PER_VIDEO}])
def test_clips_that_share_an_ffmpeg_give_the_same_cache_and_frames(
    changes: dict[str, Any],
    corpus: Path,
    starts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two threads get five clips each; those of the run with the damaged one are then alone."""
    shared = run(corpus, tmp_path / "shared", **changes)
    assert inputs(starts) == [1, 1, 1, 1, 1, 5, 5]
    monkeypatch.setattr(short_videos, "_SHORT_BYTES", 0)
    alone = run(corpus, tmp_path / "alone", **changes)
    assert inputs(starts) == [1] * COUNT
    assert shared.content_digest == alone.content_digest
    assert shared.frames_done == alone.frames_done
    for stored in (tmp_path / "alone" / "frames").glob("*.arrow"):
        assert (tmp_path / "shared" / "frames" / stored.name).read_bytes() == stored.read_bytes()


def test_fewer_share_an_ffmpeg_where_few_files_may_be_open(
    corpus: Path, starts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_videos, "files_at_once", lambda: 64)
    run(corpus, tmp_path / "out")
    assert [count for count in inputs(starts) if count > 1] == [2] * 5
    run(corpus, tmp_path / "most", decode={"parallel_videos": 5})
    assert inputs(starts) == [1] * COUNT


def test_a_worker_stops_to_try_where_clips_are_too_large(
    corpus: Path, starts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_videos, "_MOST_TOGETHER", 2)
    monkeypatch.setattr("distinit.pipeline.video.short._MAX_BYTES", 1000)
    run(corpus, tmp_path / "out", decode={"parallel_videos": 1})
    assert inputs(starts) == [1] * COUNT + [2] * 3
