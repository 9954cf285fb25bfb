"""The whole of a cache: same content in any order, after any interruption, never a stale part."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import caches

from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.opening import read_cache_plan
from distinit.pipeline.cache.writer import CacheWriter
from distinit.schemas.errors import (
    CacheCorruptError,
    CacheError,
    CacheMismatchError,
    ConfigError,
    LockedError,
)
from distinit.schemas.tables import VIDEOS_SCHEMA
from distinit.schemas.video import SamplingConfig


def test_manifest_of_a_complete_cache(cache_root: Path, corpus: Any, teachers: list[Any]) -> None:
    manifest = json.loads((cache_root / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert manifest["corpus"] | {"digest": ""} == {
        "digest": "",
        "videos": 6,
        "failed": 1,
        "damaged": 0,
        "frames": 279,
        "gone": 0,
    }
    assert manifest["row_space"] == {"capacity": 64, "units": 7, "rows": 279}
    assert manifest["teachers"]["beta"]["units_committed"] == 7
    videos = pq.read_table(cache_root / "videos.parquet")
    assert videos.schema.equals(VIDEOS_SCHEMA)
    rows = {row["path"]: row for row in videos.to_pylist()}
    assert rows["bad.mp4"]["status"] == "failed"
    assert rows["bad.mp4"]["error"] == "made to fail"
    assert rows["bad.mp4"]["frame_count"] == 0
    assert {p: r["frame_count"] for p, r in rows.items() if p != "bad.mp4"} == {
        f"{name}.mp4": frames for name, frames in corpus.frames.items() if name != "bad"
    }
    assert videos.column("video_id").to_pylist() == sorted(r["video_id"] for r in rows.values())


def test_frames_list_used_rows_only(cache_root: Path, corpus: Any) -> None:
    tables = [pq.read_table(path) for path in sorted((cache_root / "frames").iterdir())]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len(rows) == len({row["row"] for row in rows}) == 279
    bad = corpus.id_of("bad")
    assert bad not in {row["video_id"] for row in rows}
    c_rows = [row["row"] for row in rows if row["video_id"] == corpus.id_of("c")]
    assert c_rows == list(range(c_rows[0], c_rows[0] + 150))
    assert c_rows[0] % 64 == 0


def test_fidelity_is_measured_while_writing(cache_root: Path) -> None:
    alpha = json.loads((cache_root / "teachers/alpha/teacher.json").read_text())["fidelity"]
    beta = json.loads((cache_root / "teachers/beta/teacher.json").read_text())["fidelity"]
    assert alpha["frames"] == beta["frames"] == 279
    assert 0 < alpha["mean_kl_nats"] < 1e-6
    assert alpha["mean_kl_nats"] < beta["mean_kl_nats"] < 1e-4
    assert alpha["top1_agreement"] == 1.0


@pytest.mark.parametrize(("block", "order"), [(1, list), (64, reversed), (1000, list)])
def test_order_and_block_size_do_not_change_the_digest(
    cache_root: Path,
    tmp_path: Path,
    corpus: Any,
    teachers: list[Any],
    block: int,
    order: Any,
) -> None:
    again = caches.run_all(tmp_path / "again", corpus, teachers, block=block, order=order)
    first = json.loads((cache_root / "manifest.json").read_text())
    assert again.content_digest == first["content_digest"] != ""


@pytest.mark.parametrize("done", [0, 1, 3])
def test_interrupted_and_resumed_gives_the_same_digest(
    cache_root: Path,
    tmp_path: Path,
    corpus: Any,
    teachers: list[Any],
    done: int,
) -> None:
    root = tmp_path / "resumed"
    with caches.open_writer(root, corpus, teachers) as writer:
        specs = writer.pending_groups()
        for spec in specs[:done]:
            caches.run_task(spec, corpus)
        caches.run_task(specs[done], corpus, commit=False)  # dies before its commit
    (root / "frames").mkdir(exist_ok=True)
    (root / "frames" / "unit-00006.parquet.partial").write_bytes(b"half")
    (root / "manifest.json.0a1b2c3d.partial").write_bytes(b"half")
    manifest = caches.run_all(root, corpus, teachers)
    first = json.loads((cache_root / "manifest.json").read_text())
    assert manifest.content_digest == first["content_digest"]
    assert not (root / ".staging").exists()
    assert not list(root.rglob("*.partial"))


def test_a_kill_between_two_commit_records_is_repaired(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    before = json.loads((cache_root / "manifest.json").read_text())["content_digest"]
    plan = read_cache_plan(cache_root)
    assert plan is not None
    long = next(task for task in plan.groups if task.units == 3)
    for teacher in ("alpha", "beta"):
        name = f"unit-{long.first_unit + 1:05d}.json"
        (cache_root / "teachers" / teacher / "commits" / name).unlink()
    with caches.open_writer(cache_root, corpus, teachers) as writer:
        (spec,) = writer.pending_groups()
        assert (spec.group, spec.committed_outcomes) == (long, ())
        assert not writer.manifest.complete
    assert caches.run_all(cache_root, corpus, teachers).content_digest == before


def test_a_finished_run_changes_no_byte(cache_root: Path, corpus: Any, teachers: list[Any]) -> None:
    def content() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in cache_root.rglob("*") if p.is_file()}

    before = content()
    caches.run_all(cache_root, corpus, teachers)
    assert content() == before


def test_an_unfinished_cache_stays_incomplete(
    tmp_path: Path, corpus: Any, teachers: list[Any]
) -> None:
    with caches.open_writer(tmp_path / "c", corpus, teachers) as writer:
        caches.run_task(writer.pending_groups()[0], corpus)
        manifest = writer.finalise()
    assert (manifest.complete, manifest.content_digest) == (False, "")
    assert not (tmp_path / "c" / "manifest-sha256.txt").exists()


def test_sha256sum_accepts_the_checksums(cache_root: Path) -> None:
    command = ["sha256sum", "-c", "--strict", "manifest-sha256.txt"]
    done = subprocess.run(command, cwd=cache_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    private = {".lock", "manifest-sha256.txt"}
    files = {str(p.relative_to(cache_root)) for p in cache_root.rglob("*") if p.is_file()}
    assert {line.split(": ")[0] for line in done.stdout.splitlines()} == files - private


def test_a_teacher_added_later_changes_nothing_that_is_there(
    cache_root: Path, tmp_path: Path, corpus: Any, teachers: list[Any]
) -> None:
    stable = [p for p in cache_root.rglob("*") if "alpha" in p.parts or "frames" in p.parts]
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in stable if p.is_file()}
    gamma = caches.make_teacher("gamma", encoding="topk:2")
    manifest = caches.run_all(cache_root, corpus, [gamma])
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in before}
    record = cache_root / "teachers/alpha/teacher.json"
    assert after.pop(record)[0] == before.pop(record)[0]
    assert after == before
    together = caches.run_all(tmp_path / "together", corpus, [*teachers, gamma])
    assert manifest.content_digest == together.content_digest


def test_a_later_teacher_must_meet_the_same_frames(cache_root: Path, corpus: Any) -> None:
    with caches.open_writer(cache_root, corpus, [caches.make_teacher("gamma")]) as writer:
        spec = next(s for s in writer.pending_groups() if s.videos)
        video = spec.videos[0]
        shorter = caches.Corpus({**corpus.frames, corpus.name_of(video): video.reserved_rows - 1})
        with pytest.raises(CacheMismatchError, match=video.video_id):
            caches.run_task(spec, shorter)
        task = GroupWriter(spec)
        for other in spec.videos:
            index_N = np.arange(other.reserved_rows)
            hash_N = caches.hash_of(other.video_id, index_N) + np.uint64(other is video)
            logits = {t.id: caches.logits_of(other.video_id, t, index_N) for t in spec.teachers}
            task.add(other, index_N, index_N * 512, "1/12800", hash_N, logits)
            task.finish_video(caches.outcome_of(other.video_id, other.reserved_rows))
        with pytest.raises(CacheMismatchError, match=rf"row {video.first_row}: "):
            task.commit()
        assert not (cache_root / "teachers/gamma/commits").exists()


def test_videos_added_later_get_units_at_the_end(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    plan = read_cache_plan(cache_root)
    assert plan is not None
    before = {p: p.read_bytes() for p in (cache_root / "frames").iterdir()}
    more = caches.Corpus({**corpus.frames, "new": 70}, corpus.broken)
    manifest = caches.run_all(cache_root, more, teachers)
    assert manifest.row_space.model_dump() == {"capacity": 64, "units": 9, "rows": 349}
    assert {p: p.read_bytes() for p in before} == before
    grown = read_cache_plan(cache_root)
    assert grown is not None
    assert grown.groups[:-1] == plan.groups
    assert grown.digest == plan.digest
    array = json.loads((cache_root / "teachers/alpha/logits/zarr.json").read_text())
    assert array["shape"] == [9 * 64, 7]


def test_growing_past_a_teacher_leaves_the_cache_incomplete(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    more = caches.Corpus({**corpus.frames, "new": 70}, corpus.broken)
    manifest = caches.run_all(cache_root, more, teachers[:1])
    assert not manifest.complete
    assert manifest.teachers["alpha"].units_committed == 9
    assert manifest.teachers["beta"].units_committed == 7
    assert caches.run_all(cache_root, more, teachers).complete


def test_a_video_with_more_frames_than_announced_is_planned_again(
    tmp_path: Path, teachers: list[Any]
) -> None:
    frames = {"a": 30, "b": 40, "c": 20, "d": 100}
    corpus = caches.Corpus(frames, announced={"a": 25, "d": 30})
    manifest = caches.run_all(tmp_path / "c", corpus, teachers)
    assert manifest.complete
    assert manifest.corpus.frames == manifest.row_space.rows == 190
    again = caches.run_all(tmp_path / "d", corpus, teachers, order=reversed, block=3)
    assert again.content_digest == manifest.content_digest
    gamma = caches.make_teacher("gamma")
    added = caches.run_all(tmp_path / "c", corpus, [gamma])
    assert added.teachers["gamma"].units_committed == manifest.row_space.units


def test_a_video_that_never_gives_the_same_count_fails(tmp_path: Path, teachers: list[Any]) -> None:
    corpus = caches.Corpus({"a": 10}, announced={"a": 5})
    with caches.open_writer(tmp_path / "c", corpus, teachers) as writer:
        for _ in range(3):
            (spec,) = writer.pending_groups()
            caches.run_task(spec, corpus)
            corpus.frames["a"] += 10
            writer.replan_spilled()
        manifest = writer.finalise()
    assert (manifest.complete, manifest.corpus.failed, manifest.row_space.rows) == (True, 1, 0)


def test_failed_videos_can_be_tried_again(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    healed = caches.Corpus(corpus.frames)
    with caches.open_writer(cache_root, healed, teachers) as writer:
        ((entry, outcome),) = writer.failed_videos()
        assert (entry.path, outcome.error) == ("bad.mp4", "made to fail")
        with pytest.raises(CacheError, match="planned again"):
            writer.replan([caches.make_planned("a", 30)])
        writer.replan([caches.make_planned("bad", 20)])
        (spec,) = writer.pending_groups()
        caches.run_task(spec, healed)
        manifest = writer.finalise()
    assert (manifest.complete, manifest.corpus.failed, manifest.corpus.frames) == (True, 0, 299)


def test_a_corpus_where_everything_fails_still_completes(
    tmp_path: Path, teachers: list[Any]
) -> None:
    corpus = caches.Corpus({"a": 10, "z": 200}, frozenset({"a", "z"}), {"a": 0})
    manifest = caches.run_all(tmp_path / "c", corpus, teachers)
    assert (manifest.complete, manifest.row_space.rows, manifest.corpus.failed) == (True, 0, 2)
    assert not list((tmp_path / "c").glob("teachers/*/*/c"))


def test_an_empty_corpus_makes_an_empty_cache(tmp_path: Path, teachers: list[Any]) -> None:
    manifest = caches.run_all(tmp_path / "c", caches.Corpus({}), teachers)
    assert (manifest.complete, manifest.row_space.units) == (True, 0)


def test_another_sampling_unit_or_teacher_is_refused(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    stride = SamplingConfig(mode="stride", stride=2)
    with pytest.raises(CacheMismatchError, match="sampling"):
        caches.open_writer(cache_root, corpus, teachers, sampling=stride)
    with pytest.raises(CacheMismatchError, match="unit size"):
        caches.open_writer(cache_root, corpus, teachers, unit_rows=128)
    for other, field in (
        (caches.make_teacher("alpha", weights="f" * 64), "weights_sha256: 0{64} there, f{64} now"),
        (caches.make_teacher("alpha", encoding="int8"), "encoding: float16 there, int8 now"),
        (caches.make_teacher("alpha", classes=8), "classes: 7 there, 8 now"),
    ):
        with pytest.raises(CacheMismatchError, match="another teacher named alpha") as raised:
            caches.open_writer(cache_root, corpus, [other])
        assert re.search(field, str(raised.value.found))
    assert caches.open_writer(cache_root, corpus, teachers).manifest.complete  # the lock is free


def test_a_teacher_id_with_path_parts_is_refused(tmp_path: Path, corpus: Any) -> None:
    for name in ("../x", "a/b", ".hidden", ""):
        with pytest.raises(CacheCorruptError, match="folder name"):
            caches.open_writer(tmp_path / "c", corpus, [caches.make_teacher(name)])


def test_topk_of_every_class_is_refused(tmp_path: Path, corpus: Any) -> None:
    with pytest.raises(ConfigError, match="every class"):
        caches.open_writer(tmp_path / "c", corpus, [caches.make_teacher("t", encoding="topk:7")])


def test_one_writer_at_a_time(cache_root: Path, corpus: Any, teachers: list[Any]) -> None:
    with (
        caches.open_writer(cache_root, corpus, teachers),
        pytest.raises(LockedError, match="one writer"),
    ):
        caches.open_writer(cache_root, corpus, teachers)


def test_a_folder_with_other_content_is_refused(
    tmp_path: Path, corpus: Any, teachers: list[Any]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CacheError, match=r"thesis\.txt"):
        caches.open_writer(tmp_path, corpus, teachers)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_writer_killed_before_the_first_manifest_is_resumed(
    cache_root: Path, tmp_path: Path, corpus: Any, teachers: list[Any]
) -> None:
    root = tmp_path / "begun"
    root.mkdir()
    shutil.copy(cache_root / "plan.parquet", root)
    for name in ("plan.parquet.0a1b2c3d.partial", "manifest.json.0a1b2c3d.partial"):
        (root / name).write_bytes(b"half")
    assert caches.run_all(root, corpus, teachers).complete
    assert not list(root.rglob("*.partial"))


def test_leftovers_of_workers_killed_during_the_run_are_removed_at_its_end(
    tmp_path: Path, corpus: Any, teachers: list[Any]
) -> None:
    root = tmp_path / "cache"
    with caches.open_writer(root, corpus, teachers) as writer:
        for spec in writer.pending_groups():
            caches.run_task(spec, corpus)
        (root / "frames" / "unit-00001.parquet.0a1b2c3d.partial").write_bytes(b"half")
        assert writer.finalise().complete
    assert not list(root.rglob("*.partial"))


def test_a_cache_that_lost_its_manifest_is_not_taken_for_a_new_one(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    (cache_root / "manifest.json").unlink()
    with pytest.raises(CacheCorruptError, match=r"no manifest\.json"):
        caches.open_writer(cache_root, corpus, teachers)


def test_stored_rows_win_over_what_a_later_probe_says(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    videos = [
        replace(v, file=replace(v.file, path="moved/" + v.file.path), rows=0)
        for v in corpus.planned
    ]
    with CacheWriter.create_or_open(
        cache_root,
        videos=videos,
        sampling=SamplingConfig(),
        teachers={t.id: t for t in teachers},
    ) as writer:
        assert writer.pending_groups() == ()
        assert writer.manifest.complete
