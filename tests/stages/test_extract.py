"""Extraction from real tiny videos: the content of the cache, however the run was executed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.videos import decode_with_pyav, make_video

from distinit.pipeline.cache import state, writer
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.state import CacheState, read_state
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import store_lock
from distinit.pipeline.teachers.null import NullTeacher
from distinit.pipeline.units import unit_name
from distinit.schemas.errors import (
    CacheMismatchError,
    ConfigError,
    CorpusError,
    FrameStoreError,
    LockedError,
    TooManyFailuresError,
)
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.manifest import UnitCommit
from distinit.schemas.teacher import TeacherRecord, TeacherRequest
from distinit.stages.extract import ExtractResult, extract

FRAME_COUNTS = {"a.mp4": 20, "b/c.mp4": 33, "b/d [1].mp4": 12, "e.mp4": 41, "long.mp4": 150}
BROKEN = {"empty.mp4", "torn.mp4"}


def run(corpus: Path, out: Path, *names: str, **changes: Any) -> ExtractResult:
    """Extract with the null teacher into units of 64 rows."""
    values = {
        "videos": str(corpus),
        "teachers": [{"name": "null", "id": name} for name in names or ("null",)],
        "cache": str(out / "cache"),
        "frames": str(out / "frames"),
        "unit_rows": 64,
        "batch_size": 16,
    }
    return extract(ExtractConfig.model_validate(values | changes))


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExtractResult]:
    out = tmp_path_factory.mktemp("done")
    return out, run(corpus, out)


def test_every_video_is_complete_or_failed_with_a_reason(done: tuple[Path, ExtractResult]) -> None:
    out, result = done
    rows = pq.read_table(out / "cache" / "videos.parquet").to_pylist()
    counts = {row["path"]: row["frame_count"] for row in rows if row["status"] == "ok"}
    assert counts == FRAME_COUNTS
    failed = {row["path"]: row["error"] for row in rows if row["status"] == "failed"}
    assert failed.keys() == BROKEN
    assert failed["empty.mp4"] == "the file is empty (0 bytes)"
    assert (result.videos, result.frames, result.rows) == (7, 256, 256)
    assert {video.path for video in result.failed} == BROKEN
    assert result.complete


def test_the_cache_verifies_and_the_frame_store_has_the_same_frames(
    done: tuple[Path, ExtractResult],
) -> None:
    out, _ = done
    assert verify_cache(out / "cache").problems == ()
    cache = TargetCache.open(out / "cache")
    store = FrameStore.open(out / "frames")
    ok = [row for row in cache.videos.to_pylist() if row["status"] == "ok"]
    assert {row["video_id"] for row in ok} == set(store.videos)
    for row in ok:
        assert store.videos[row["video_id"]].frame_count == row["frame_count"]


def nearest_frames(stored_NC: np.ndarray, output_MC: np.ndarray) -> list[int]:
    """For each stored row, the index of the frame whose teacher output is closest to it."""
    distance_NM = np.abs(stored_NC[:, None] - output_MC[None]).max(axis=2)
    return distance_NM.argmin(axis=1).tolist()


def test_logits_are_those_of_the_frame_that_the_row_names(
    corpus: Path, done: tuple[Path, ExtractResult]
) -> None:
    """Compared with the teacher's output for every frame of the video, decoded by PyAV."""
    cache = TargetCache.open(done[0] / "cache")
    teacher = NullTeacher(TeacherRequest(name="null"))
    videos = {row["path"]: row["video_id"] for row in cache.videos.to_pylist()}
    for path, frame_count in FRAME_COUNTS.items():
        frames = list(range(frame_count))
        _, _, frames_NHWC = decode_with_pyav(corpus / path)
        output_NC = teacher.forward(frames_NHWC)
        stored_NC = cache.targets("null").logits(cache.index.rows_of(videos[path], frames))
        np.testing.assert_array_equal(stored_NC, output_NC.astype(np.float16))
        assert nearest_frames(stored_NC, output_NC) == frames
        # Control: rows that are shifted by one frame give other frame indices.
        assert nearest_frames(np.roll(stored_NC, 1, axis=0), output_NC) == frames[-1:] + frames[:-1]


@pytest.mark.ray
def test_two_ray_workers_give_the_same_digest(
    corpus: Path, done: tuple[Path, ExtractResult], tmp_path: Path, ray_session: None
) -> None:
    result = run(corpus, tmp_path, compute={"workers": 2})
    assert result.content_digest == done[1].content_digest
    assert result.frames_done == done[1].frames_done


def test_a_second_run_does_nothing_and_reports_the_same_digest(
    corpus: Path, done: tuple[Path, ExtractResult]
) -> None:
    again = run(corpus, done[0])
    assert again.frames_done == 0
    assert again.content_digest == done[1].content_digest


def test_a_cache_without_the_frame_store_has_the_same_digest(
    corpus: Path, done: tuple[Path, ExtractResult], tmp_path: Path
) -> None:
    result = run(corpus, tmp_path, frames=None, decode={"parallel_videos": 1}, batch_size=5)
    assert result.content_digest == done[1].content_digest
    assert not (tmp_path / "frames").exists()


def test_rerunning_the_command_after_sigkill_in_mid_run_gives_the_same_digest(
    corpus: Path, done: tuple[Path, ExtractResult], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "distinit.cli", "extract", "--quiet"]
    command += ["--videos", str(corpus), "--teacher", "null", "--cache", str(cache)]
    command += ["--frames", str(tmp_path / "frames"), "--set", "unit_rows=64"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    commits = cache / "teachers" / "null" / "commits"
    deadline = time.monotonic() + 300  # long enough for a busy machine
    while len(list(commits.glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(list(commits.glob("*.json")))
    assert 3 <= before < 6, "the kill must come in mid-run"  # 3: at least one task is finished
    with pytest.raises(Exception, match=r"incomplete|not complete|unfinished"):
        TargetCache.open(cache)
    result = run(corpus, tmp_path)
    assert result.content_digest == done[1].content_digest
    assert result.frames_done < done[1].frames_done
    assert verify_cache(cache).problems == ()


def test_adding_a_teacher_later_leaves_the_first_unchanged_and_equals_a_joint_pass(
    corpus: Path, tmp_path: Path
) -> None:
    joint = run(corpus, tmp_path / "joint", "one", "two")
    first = run(corpus, tmp_path / "later", "one")
    before = _bytes_below(tmp_path / "later" / "cache" / "teachers" / "one" / "commits")
    later = run(corpus, tmp_path / "later", "two")
    assert _bytes_below(tmp_path / "later" / "cache" / "teachers" / "one" / "commits") == before
    assert later.content_digest == joint.content_digest != first.content_digest
    assert later.teachers == ("one", "two")


def test_naming_a_present_and_a_new_teacher_extracts_the_units_that_each_lacks(
    corpus: Path, done: tuple[Path, ExtractResult], tmp_path: Path
) -> None:
    shutil.copytree(done[0], tmp_path / "copy")
    joint = run(corpus, tmp_path / "joint", "null", "other", frames=None)
    both = run(corpus, tmp_path / "copy", "null", "other")
    assert both.complete
    assert both.content_digest == joint.content_digest
    # Some units lack one teacher, and new units lack both.
    more = tmp_path / "more"
    shutil.copytree(corpus, more)
    (more / "new.mp4").write_bytes((corpus / "e.mp4").read_bytes() + b"\0" * 64)
    grown = run(more, tmp_path / "copy", "other", "third", "null")
    assert grown.complete
    assert verify_cache(tmp_path / "copy" / "cache").problems == ()


def test_new_videos_get_new_units_and_existing_units_are_unchanged(
    corpus: Path, tmp_path: Path
) -> None:
    grown = tmp_path / "videos"
    shutil.copytree(corpus, grown)
    run(grown, tmp_path)
    old = _bytes_below(tmp_path / "cache" / "teachers" / "null" / "commits")
    make_video(grown / "new.mp4", frames=9, seed=99)
    result = run(grown, tmp_path)
    now = _bytes_below(tmp_path / "cache" / "teachers" / "null" / "commits")
    assert {name: now[name] for name in old} == old
    assert (result.videos, result.frames, result.frames_done) == (8, 265, 9)


def test_failed_videos_are_tried_again_on_request(corpus: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(corpus, videos)
    run(videos, tmp_path, decode={"max_frames": 100}, max_failed=0.5)
    failed = pq.read_table(tmp_path / "cache" / "videos.parquet").to_pylist()
    assert {r["path"] for r in failed if r["status"] == "failed"} == {*BROKEN, "long.mp4"}
    result = run(videos, tmp_path, retry_failed=True)
    assert {video.path for video in result.failed} == BROKEN
    assert result.frames == 256


def test_failures_are_grouped_by_reason_and_too_many_are_an_error(
    corpus: Path, tmp_path: Path
) -> None:
    result = run(corpus, tmp_path, max_failed=0.3)  # 2 of 7
    assert "  1 x the file is empty (0 bytes)\n      empty.mp4\n" in result.summary()
    assert "--retry-failed" in result.summary()
    with pytest.raises(TooManyFailuresError, match="all good ones are committed") as caught:
        run(corpus, tmp_path, max_failed=0.1)
    assert "empty.mp4" in str(caught.value)
    assert "none of 7 videos\n" in str(caught.value)
    assert "2 failed, which is 28.6%\n" in str(caught.value)
    assert "--max-failed 0.29 to resume" in str(caught.value)
    assert TargetCache.open(tmp_path / "cache").manifest.corpus.frames == 256


def test_by_default_most_of_a_small_corpus_must_not_fail(corpus: Path, tmp_path: Path) -> None:
    """Two of three end the run, with number, share and how to go on; two of seven do not."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.mp4", *sorted(BROKEN)):
        shutil.copy(corpus / name, videos)
    with pytest.raises(TooManyFailuresError) as caught:
        run(videos, tmp_path / "bad")
    message = str(caught.value)
    assert "at most 1 of 3 videos (--max-failed is auto)\n" in message
    assert "2 failed, which is 66.7%" in message
    assert "--max-failed 0.67 to resume" in message
    result = run(videos, tmp_path / "bad", max_failed=0.67)
    assert (result.complete, result.frames, len(result.failed)) == (True, 20, 2)
    whole = run(corpus, tmp_path / "good")
    assert (whole.complete, len(whole.failed), whole.videos) == (True, 2, 7)


def test_stride_keeps_every_nth_frame(corpus: Path, tmp_path: Path) -> None:
    result = run(corpus, tmp_path, sampling={"mode": "stride", "stride": 10})
    assert result.rows == 2 + 4 + 2 + 5 + 15
    assert result.frames == 256
    cache = TargetCache.open(tmp_path / "cache")
    video = next(r for r in cache.videos.to_pylist() if r["path"] == "e.mp4")["video_id"]
    rows = cache.index.rows_of(video, list(range(41)))
    assert [i for i, row in enumerate(rows) if row >= 0] == [0, 10, 20, 30, 40]


def test_renamed_videos_are_recognized_by_content_and_missing_ones_do_not_end_the_run(
    corpus: Path, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(corpus, videos)
    run(videos, tmp_path, "one", frames=None)
    (videos / "a.mp4").rename(videos / "renamed.mp4")
    assert run(videos, tmp_path, "two", frames=None).frames_done == 256
    (videos / "e.mp4").unlink()
    result = run(videos, tmp_path, "three", frames=None)
    assert (result.complete, result.frames_done) == (True, 256 - 41)
    assert result.corpus.gone.names == ("e.mp4",)


def test_another_teacher_under_the_same_name_is_refused(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path)
    changed = [{"name": "null", "id": "null", "encoding": "int8"}]
    with pytest.raises(CacheMismatchError, match="another teacher named null"):
        run(corpus, tmp_path, teachers=changed)


def test_a_frame_store_of_another_cache_is_refused(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path)
    with pytest.raises(FrameStoreError):
        run(corpus, tmp_path, cache=str(tmp_path / "other"), unit_rows=128)


def bytes_of(root: Path) -> dict[str, bytes]:
    """Content of all files of a frame store, except the lock, which names the last writer."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_frames_are_added_to_a_cache_without_running_a_teacher(
    corpus: Path, done: tuple[Path, ExtractResult], tmp_path: Path
) -> None:
    run(corpus, tmp_path, frames=None)
    assert run(corpus, tmp_path).frames_done == 0
    assert bytes_of(tmp_path / "frames") == bytes_of(done[0] / "frames")


def test_an_idle_rerun_reads_the_state_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(corpus, tmp_path)
    reads: list[str] = []

    def counted_state(*args: Any) -> CacheState:
        reads.append("state")
        return read_state(*args)

    def counted_commit(layout: CacheLayout, record: TeacherRecord, unit: int) -> UnitCommit:
        reads.append(unit_name(unit))
        return read_commit(layout, record, unit)

    monkeypatch.setattr(writer, "read_state", counted_state)
    monkeypatch.setattr(state, "read_commit", counted_commit)
    assert run(corpus, tmp_path).content_digest == before.content_digest
    units = [path.stem for path in (tmp_path / "cache/teachers/null/commits").glob("*.json")]
    assert sorted(reads) == sorted(["state", *units])


def test_rerunning_the_command_repairs_damaged_units_of_the_frame_store(
    corpus: Path, done: tuple[Path, ExtractResult], tmp_path: Path
) -> None:
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    store = tmp_path / "frames"
    intact = bytes_of(store)
    unit = sorted(store.glob("unit-*.arrow"))[1]
    record = store / "commits" / f"{unit.stem}.json"
    for number, damage in enumerate(
        (
            unit.unlink,
            lambda: os.truncate(unit, 5_000),
            record.unlink,
            lambda: record.write_text("{}"),
        )
    ):
        damage()
        with pytest.raises(FrameStoreError, match=r"rerun the command that wrote the store"):
            FrameStore.open(store)
        assert run(corpus, tmp_path).frames_done == 0, number
        assert bytes_of(store) == intact, number


def test_a_unit_with_other_frames_than_its_targets_is_refused(
    corpus: Path, done: tuple[Path, ExtractResult], tmp_path: Path
) -> None:
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    store = tmp_path / "frames"
    sorted((store / "commits").iterdir())[1].unlink()
    with pytest.raises(FrameStoreError, match="gives different frames than when its targets"):
        run(corpus, tmp_path, decode={"max_frames": 3})
    with pytest.raises(FrameStoreError, match="is not finished"):
        FrameStore.open(store)


def test_only_one_process_can_write_a_frame_store(corpus: Path, tmp_path: Path) -> None:
    with (
        store_lock(tmp_path / "frames"),
        pytest.raises(LockedError, match=r"another process is writing .*frames"),
    ):
        run(corpus, tmp_path)
    assert run(corpus, tmp_path).complete


def test_a_corpus_that_is_missing_or_empty_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for name in ("missing", "nothing"):
        with pytest.raises(CorpusError):
            run(tmp_path / name, tmp_path)
    assert not (tmp_path / "cache").exists()


def test_two_teachers_with_the_same_name_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two teachers have the id null"):
        run(corpus, tmp_path, teachers=[{"name": "null"}, {"name": "null"}])


@pytest.mark.parametrize(
    ("cache", "frames"), [("a", "a"), ("a", "a/frames"), ("a/cache", "a"), ("a/.staging", "a")]
)
def test_nested_cache_and_frame_store_are_refused(
    corpus: Path, tmp_path: Path, cache: str, frames: str
) -> None:
    places = {"cache": str(tmp_path / cache), "frames": str(tmp_path / frames)}
    with pytest.raises(ConfigError, match="nothing else is written there"):
        run(corpus, tmp_path, **places)
    assert list(tmp_path.iterdir()) == []


def _bytes_below(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
