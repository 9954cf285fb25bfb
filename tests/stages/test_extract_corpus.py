"""Changes of the corpus between runs: changed, gone, renamed and duplicate videos."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.progress import RecordingProgress
from helpers.videos import make_video

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.distillation.matching import match_videos
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.audit import AuditConfig
from distinit.schemas.errors import CacheError, CorpusError, TooManyFailuresError
from distinit.schemas.extract import ExtractConfig
from distinit.stages.audit import audit
from distinit.stages.cache_info import cache_info
from distinit.stages.cache_verify import cache_verify
from distinit.stages.extract import ExtractResult, extract
from distinit.stages.frames import verify_frames


def run(folder: Path, *names: str, videos: str = "v", **changes: Any) -> ExtractResult:
    """Extract ``folder/v`` with null teachers of these ids."""
    values: dict[str, Any] = {
        "videos": str(folder / videos),
        "teachers": [{"name": "null", "id": name} for name in names or ("null",)],
        "cache": str(folder / "cache"),
        "unit_rows": 64,
    }
    return extract(ExtractConfig.model_validate(values | changes))


def rows_of(folder: Path) -> list[tuple[str, str, int, bool]]:
    """Tuples (path, status, frame count, in_corpus) from videos.parquet, sorted."""
    table = pq.read_table(folder / "cache" / "videos.parquet").to_pylist()
    return sorted((r["path"], r["status"], r["frame_count"], r["in_corpus"]) for r in table)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with three videos in ``v``: a (9 frames), b (11), c (13)."""
    for seed, (name, frames) in enumerate({"a.mp4": 9, "b.mp4": 11, "c.mp4": 13}.items()):
        make_video(tmp_path / "v" / name, frames=frames, seed=seed)
    return tmp_path


def test_a_repaired_video_is_no_longer_a_failure(home: Path) -> None:
    whole = (home / "v/b.mp4").read_bytes()
    (home / "v/b.mp4").write_bytes(whole[:900])
    first = run(home)
    assert ([video.path for video in first.failed], first.videos) == (["b.mp4"], 3)
    (home / "v/b.mp4").write_bytes(whole)
    result = run(home, max_failed=0.0)
    assert (result.videos, result.failed, result.frames) == (3, (), 33)
    assert result.summary().startswith("3 of 3 videos, 33 frames, 33 rows")
    assert result.corpus.changed.names == ("b.mp4",)
    assert (result.corpus.new.count, result.corpus.gone.count) == (0, 0)
    assert rows_of(home) == [
        ("a.mp4", "ok", 9, True),
        ("b.mp4", "failed", 0, False),
        ("b.mp4", "ok", 11, True),
        ("c.mp4", "ok", 13, True),
    ]
    again = run(home, retry_failed=True)
    assert (again.failed, again.content_digest) == ((), result.content_digest)
    assert again.corpus.changed.count == 0, "reported once, by the run that added it"
    assert verify_cache(home / "cache").problems == ()


def test_removed_videos_leave_training_and_come_back_with_the_same_digest(home: Path) -> None:
    first = run(home, frames=str(home / "frames"))
    (home / "v/c.mp4").rename(home / "c.mp4")
    result = run(home, frames=str(home / "frames"))
    assert (result.videos, result.frames, result.rows) == (2, 20, 33)
    assert result.corpus.gone.names == ("c.mp4",)
    assert result.summary().startswith("2 of 2 videos, 20 frames, 33 rows (including gone videos")
    assert ("c.mp4", "ok", 13, False) in rows_of(home)
    assert result.complete
    assert verify_cache(home / "cache").problems == ()
    cache, store = TargetCache.open(home / "cache"), FrameStore.open(home / "frames")
    assert match_videos(cache, store).frame_count_V.tolist() in ([9, 11], [11, 9])
    assert result.content_digest != first.content_digest, "training uses other videos"
    kept = run(home, frames=str(home / "frames"), keep_gone=True)
    assert (kept.videos, kept.content_digest) == (3, first.content_digest)
    assert len(match_videos(TargetCache.open(home / "cache"), store).frame_count_V) == 3
    run(home, frames=str(home / "frames"))
    (home / "c.mp4").rename(home / "v/c.mp4")
    back = run(home, frames=str(home / "frames"))
    assert back.corpus.returned.names == ("c.mp4",)
    assert (back.frames_done, back.content_digest) == (0, first.content_digest)


def test_a_unit_is_repaired_without_the_videos_that_are_gone(home: Path) -> None:
    store, shard = home / "frames", home / "cache/teachers/null/logits/c/0/0"
    run(home, frames=str(store))
    (home / "v/b.mp4").unlink()
    run(home, frames=str(store))
    shard.unlink()
    for damaged in sorted(store.glob("unit-*.arrow")):
        os.truncate(damaged, 100)
    progress = RecordingProgress()
    values = {
        "videos": str(home / "v"),
        "teachers": [{"name": "null", "id": "null"}],
        "cache": str(home / "cache"),
        "frames": str(store),
        "unit_rows": 64,
    }
    result = extract(ExtractConfig.model_validate(values), progress=progress)
    assert (result.complete, result.frames) == (True, 22)
    removed = [message for message in progress.messages if "removed video" in message]
    assert removed[0] == ("1 removed video will get no rows in the pending units: b.mp4")
    assert verify_cache(home / "cache").problems == ()
    frames = FrameStore.open(store)
    assert sorted(info.frame_count for info in frames.videos.values()) == [9, 13]
    assert verify_frames(store, deep=True).exit_code == 0
    assert len(match_videos(TargetCache.open(home / "cache"), frames).cache_ids) == 2


def test_frames_are_written_again_without_the_videos_that_are_gone(home: Path) -> None:
    store = home / "frames"
    run(home, frames=str(store))
    (home / "v/b.mp4").unlink()
    digest = run(home, frames=str(store)).content_digest
    os.truncate(next(store.glob("unit-*.arrow")), 100)
    assert run(home, frames=str(store)).content_digest == digest
    frames = FrameStore.open(store)
    assert sorted(info.frame_count for info in frames.videos.values()) == [9, 13]
    reasons = [video.error for video in frames.failed.values()]
    assert reasons == ["removed from the corpus before its frames were written"]


def test_a_video_that_failed_at_first_is_used_in_training_after_a_successful_retry(
    home: Path,
) -> None:
    store = str(home / "frames")
    run(home, frames=store, decode={"max_frames": 12})
    run(home, frames=store, retry_failed=True)
    cache = TargetCache.open(home / "cache")
    assert sorted(match_videos(cache, FrameStore.open(store)).frame_count_V) == [9, 11, 13]


def test_a_renamed_video_gets_its_new_path_and_keeps_the_digest(home: Path) -> None:
    first = run(home)
    (home / "v/b.mp4").rename(home / "v/z.mp4")
    result = run(home)
    assert result.corpus.renamed.names == ("b.mp4 -> z.mp4",)
    assert (result.corpus.new.count, result.corpus.gone.count) == (0, 0)
    assert [path for path, *_ in rows_of(home)] == ["a.mp4", "c.mp4", "z.mp4"]
    assert (result.frames_done, result.content_digest) == (0, first.content_digest)
    assert verify_cache(home / "cache").problems == ()
    assert run(home).corpus.renamed.count == 0


def test_copies_are_one_video_and_are_reported(home: Path) -> None:
    shutil.copy(home / "v/a.mp4", home / "v/a copy.mp4")
    (home / "v/link.mp4").symlink_to(home / "v/b.mp4")
    result = run(home)
    assert (result.videos, result.frames) == (3, 33)
    assert result.corpus.duplicate.names == ("a.mp4 = a copy.mp4", "link.mp4 = b.mp4")
    assert "  duplicate       2  a.mp4 = a copy.mp4, link.mp4 = b.mp4" in result.summary()


def test_a_file_that_cannot_be_read_is_a_failed_video(home: Path) -> None:
    (home / "v/link.mp4").symlink_to(home / "nowhere.mp4")
    Path(os.fsdecode(os.fsencode(home) + b"/v/\xff.mp4")).write_bytes(b"x")
    result = run(home, max_failed=0.4)
    assert {video.path: video.error for video in result.failed} == {
        "link.mp4": "no such file",
        "\\udcff.mp4": "its name is not UTF-8 text: rename it",
    }
    assert (result.videos, result.frames, result.complete) == (5, 33, True)
    result.model_dump_json()
    with pytest.raises(TooManyFailuresError, match="2 failed"):
        run(home, max_failed=0.3)


def test_other_extensions_are_counted(home: Path) -> None:
    for name in ("notes.txt", "b.srt", "c.srt", ".d.mp4"):
        (home / "v" / name).touch()
    result = run(home)
    assert result.corpus.left_out == {".srt": 2, ".txt": 1}
    assert "3 files with other extensions left out: .srt 2, .txt 1\n" in result.summary()
    assert "hidden files and folders left out: .mp4 1\n" in result.summary()


def test_videos_gone_before_they_were_decoded_do_not_end_the_run(home: Path) -> None:
    run(home, "one")
    for commit in (home / "cache/teachers/one/commits").iterdir():
        commit.unlink()  # the state after a killed run
    (home / "v/c.mp4").rename(home / "c.mp4")
    result = run(home, "one")
    assert (result.complete, result.videos, result.frames, result.rows) == (True, 2, 20, 20)
    assert ("c.mp4", "gone", 0, False) in rows_of(home)
    assert verify_cache(home / "cache").problems == ()
    (home / "c.mp4").rename(home / "v/c.mp4")
    back = run(home, "one")
    assert (back.complete, back.videos, back.frames, back.frames_done) == (True, 3, 33, 13)
    assert verify_cache(home / "cache").problems == ()


@pytest.mark.parametrize("encoding", ["float16", "int8", "topk:2"])
def test_a_teacher_added_after_a_video_is_gone_has_no_targets_for_it(
    home: Path, encoding: str
) -> None:
    run(home, "one")
    (home / "v/b.mp4").rename(home / "b.mp4")
    late = [{"name": "null", "id": "two", "encoding": encoding}]
    result = run(home, teachers=late)
    assert (result.complete, result.videos, result.frames) == (True, 2, 22)
    assert verify_cache(home / "cache").problems == ()
    cache = TargetCache.open(home / "cache")
    b_mp4 = next(r["video_id"] for r in cache.videos.to_pylist() if r["path"] == "b.mp4")
    a_mp4 = next(r["video_id"] for r in cache.videos.to_pylist() if r["path"] == "a.mp4")
    rows = cache.index.rows_of(b_mp4, range(11))
    assert np.isnan(cache.targets("two").logits(rows)).all()
    assert np.isfinite(cache.targets("one").logits(rows)).all()
    assert np.isfinite(cache.targets("two").entropy_nats[cache.index.rows_of(a_mp4, [0])]).all()
    report = audit(AuditConfig(cache=str(home / "cache"), out=str(home / "audit")))
    assert (report.videos, report.gone_videos, report.frames) == (2, 1, 22)
    assert [teacher.confidence.frames for teacher in report.teachers if teacher.confidence] == [
        22,
        22,
    ]
    assert "1 video of earlier runs left out" in report.summary()
    kept = run(home, teachers=late, keep_gone=True)
    assert kept.videos == 2, "teacher two has no targets for it"
    (home / "b.mp4").rename(home / "v/b.mp4")
    back = run(home, "one")
    assert not back.complete
    assert "teacher two lacks 1 unit" in back.missing[0]
    whole = run(home, teachers=late)
    assert (whole.complete, whole.frames) == (True, 33)
    assert verify_cache(home / "cache").problems == ()
    joint = run(home, teachers=[{"name": "null", "id": "one"}, *late], cache=str(home / "cache2"))
    assert whole.content_digest == joint.content_digest


def test_another_corpus_is_refused_for_an_unfinished_cache(home: Path) -> None:
    run(home)
    make_video(home / "w/x.mp4", frames=5, seed=9)
    commit = next((home / "cache/teachers/null/commits").iterdir())
    run(home, "two", "three")
    (home / "cache/teachers/two/commits" / commit.name).unlink()
    make_video(home / "v/d.mp4", frames=5, seed=8)
    assert not run(home, "three").complete
    before = rows_of(home)
    with pytest.raises(CorpusError, match="none of the 4 videos of the unfinished cache"):
        run(home, videos="w")
    assert rows_of(home) == before


def test_a_cache_that_lacks_units_of_another_teacher_gives_the_command_to_run(home: Path) -> None:
    sampling = {"mode": "stride", "stride": 2}
    teachers = [{"name": "null", "id": "other", "encoding": "int8"}]
    run(home, teachers=teachers, sampling=sampling)
    make_video(home / "v/d.mp4", frames=5, seed=8)
    result = run(home, sampling=sampling, cache=str(home / "cache"))
    command = (
        f"distinit extract --videos {home}/v --teacher null --cache {home}/cache --encoding int8 "
        "--stride 2 --set teachers.0.id=other"
    )
    assert result.missing == (f"teacher other lacks 1 unit; run: {command}",)
    assert not result.complete
    assert f"NOT COMPLETE: teacher other lacks 1 unit; run: {command}" in result.summary()
    info = cache_info(home / "cache")
    assert info.missing[0].startswith("teacher other lacks 1 unit; run: distinit extract")
    assert "\nNOT COMPLETE: teacher other lacks 1 unit; run: " in info.summary()
    with pytest.raises(CacheError, match="teacher other lacks 1 unit") as refused:
        TargetCache.open(home / "cache")
    assert "--videos VIDEOS --teacher null" in str(refused.value)
    assert shlex.split(command)[0] == "distinit"
    assert run(home, teachers=teachers, sampling=sampling).complete


def test_verifying_a_cache_that_lacks_units_of_one_teacher_gives_the_command_to_run(
    home: Path,
) -> None:
    run(home, "first", "second")
    make_video(home / "v" / "d.mp4", frames=5, seed=9)
    run(home, "first")
    checked = cache_verify(home / "cache", deep=True)
    assert checked.exit_code == 3
    command = "--teacher null --cache {} --set teachers.0.id=second".format(home / "cache")
    assert f"  teacher second lacks 1 unit; run: distinit extract --videos VIDEOS {command}\n" in (
        checked.summary()
    )
