"""A task is written whole or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import caches

from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.schemas.errors import CacheError, TeacherError
from distinit.schemas.manifest import failed_outcome


@pytest.fixture
def specs(tmp_path: Path, corpus: Any, teachers: list[Any]) -> Iterator[list[GroupSpec]]:
    with caches.open_writer(tmp_path / "c", corpus, teachers) as writer:
        yield list(writer.pending_groups())


def add(task: GroupWriter, video: PlannedRows, start: int, stop: int) -> bool:
    index_N = np.arange(start, stop)
    logits = {t.id: caches.logits_of(video.video_id, t, index_N) for t in task.spec.teachers}
    hash_N = caches.hash_of(video.video_id, index_N)
    return task.add(video, index_N, index_N * 512, "1/12800", hash_N, logits)


def files(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}


def test_specs_travel_to_workers(specs: list[GroupSpec]) -> None:
    assert pickle.loads(pickle.dumps(specs)) == specs  # noqa: S301 - our own bytes


def test_nothing_is_visible_before_the_commit_nor_after_an_abort(
    specs: list[GroupSpec], corpus: Any
) -> None:
    root = specs[0].root
    before = files(root)
    long = next(spec for spec in specs if spec.group.units == 3)
    with GroupWriter(long) as task:
        add(task, long.videos[0], 0, 140)
        published = {name for name in files(root) if not name.startswith(".staging/")}
        assert published == before
        assert files(root) - before  # full units wait on disk
    assert files(root) == before


def test_a_long_video_that_fails_at_its_end_leaves_nothing(
    specs: list[GroupSpec], corpus: Any
) -> None:
    long = next(spec for spec in specs if spec.group.units == 3)
    (video,) = long.videos
    with GroupWriter(long) as task:
        add(task, video, 0, 149)
        task.fail_video(caches.outcome_of(video.video_id, 149, "truncated"))
        commits = task.commit()
    assert {(c.unit, c.rows) for c in commits} == {(u, 0) for u in long.group.unit_range}
    assert [v.status for c in commits for v in c.videos] == ["failed", "failed"]
    assert not list(long.root.glob("teachers/*/logits/c"))


def test_a_failed_video_does_not_touch_its_neighbours(
    specs: list[GroupSpec], tmp_path: Path
) -> None:
    spec = next(spec for spec in specs if len(spec.videos) > 1)
    first, second, *others = spec.videos
    with GroupWriter(spec) as task:
        add(task, first, 0, 3)
        add(task, second, 0, 2)  # interleaved
        add(task, first, 3, first.reserved_rows)
        add(task, second, 2, second.reserved_rows)
        task.fail_video(caches.outcome_of(first.video_id, 9, "broken"))
        task.finish_video(caches.outcome_of(second.video_id, second.reserved_rows))
        for video in others:
            task.fail_video(caches.outcome_of(video.video_id, 0, "broken"))
        commits = task.commit()
    assert {c.rows for c in commits} == {second.reserved_rows}


def test_fewer_rows_than_reserved_leave_a_gap(specs: list[GroupSpec]) -> None:
    spec = next(spec for spec in specs if spec.group.units == 1)
    with GroupWriter(spec) as task:
        for video in spec.videos:
            add(task, video, 0, video.reserved_rows - 1)
            task.finish_video(caches.outcome_of(video.video_id, video.reserved_rows - 1))
        commits = task.commit()
    expected = sum(video.reserved_rows - 1 for video in spec.videos)
    assert {c.rows for c in commits} == {expected}


def test_one_row_too_many_spills_the_video(specs: list[GroupSpec]) -> None:
    spec = next(spec for spec in specs if spec.group.units == 3)
    (video,) = spec.videos
    with GroupWriter(spec) as task:
        assert add(task, video, 0, 150)
        assert not add(task, video, 150, 151)
        assert not add(task, video, 151, 152)
        assert task.finish_video(caches.outcome_of(video.video_id, 152)).status == "spilled"
        commits = task.commit()
    assert {c.rows for c in commits} == {0}
    assert commits[-1].videos[0].frame_count == 152


def test_wrong_use_is_refused(specs: list[GroupSpec]) -> None:
    spec = next(spec for spec in specs if spec.group.units == 3)
    (video,) = spec.videos
    index_N = np.arange(4)
    good = {t.id: caches.logits_of(video.video_id, t, index_N) for t in spec.teachers}
    hash_N = np.zeros(4, np.uint64)
    with GroupWriter(spec) as task:
        for logits in (
            {"alpha": good["alpha"]},
            {**good, "more": good["alpha"]},
            {**good, "alpha": good["alpha"][:3]},
            {**good, "alpha": good["alpha"][:, :6]},
            {**good, "alpha": good["alpha"].astype(np.float16)},
        ):
            with pytest.raises(CacheError, match="inconsistent shapes"):
                task.add(video, index_N, index_N, "1/25", hash_N, logits)
        with pytest.raises(CacheError, match="inconsistent shapes"):
            task.add(video, index_N, index_N[:2], "1/25", hash_N, good)
        with pytest.raises(CacheError, match="out of order"):
            task.add(video, index_N[::-1], index_N, "1/25", hash_N, good)
        task.add(video, index_N, index_N, "1/25", hash_N, good)
        with pytest.raises(CacheError, match="above 3"):
            task.add(video, index_N, index_N, "1/25", hash_N, good)
        with pytest.raises(CacheError, match="before all its videos"):
            task.commit()
        task.finish_video(caches.outcome_of(video.video_id, 4))
        with pytest.raises(CacheError, match="no more rows"):
            task.finish_video(caches.outcome_of(video.video_id, 4))


def test_a_teacher_that_gives_nan_stops_the_task(specs: list[GroupSpec]) -> None:
    spec = next(spec for spec in specs if spec.group.units == 3)
    index_N = np.arange(2)
    logits = {t.id: caches.logits_of("x", t, index_N) for t in spec.teachers}
    logits["beta"][1, 2] = np.nan
    with GroupWriter(spec) as task, pytest.raises(TeacherError, match="contains NaN"):
        task.add(spec.videos[0], index_N, index_N, "1/25", np.zeros(2, np.uint64), logits)


def run_refusing(spec: GroupSpec, corpus: Any, refused: set[str]) -> None:
    """As ``caches.run_task``, but for some videos the answers end in the middle, unusable."""
    with GroupWriter(spec) as task:
        for video in spec.videos:
            name = corpus.name_of(video)
            frames = corpus.frames[name]
            shown = frames // 2 + 1 if name in refused else frames
            for start in range(0, shown, 10):
                index_N = np.arange(start, min(start + 10, shown))
                logits = {t.id: caches.logits_of(video.video_id, t, index_N) for t in spec.teachers}
                hash_N = caches.hash_of(video.video_id, index_N)
                task.add(video, index_N, index_N * 512, "1/12800", hash_N, logits)
            outcome = caches.outcome_of(video.video_id, frames)
            if name in refused:
                failed = failed_outcome(video.video_id, "teacher beta gave NaN: frame 3")
                assert task.refuse_video(failed) == failed
            elif name in corpus.broken:
                task.fail_video(outcome)
            else:
                task.finish_video(outcome)
        task.commit()


@pytest.mark.parametrize("target", ["logits", "features"])
@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_a_video_without_answers_of_a_later_teacher_is_out_for_all(
    target: str, encoding: str, tmp_path: Path, corpus: Any, teachers: list[Any]
) -> None:
    """One within a unit, and one that spans three."""
    root, refused = tmp_path / "cache", {"a", "c"}
    first, later = teachers[0], caches.make_teacher("beta", encoding=encoding, target=target)
    before = caches.run_all(root, corpus, [first])
    with caches.open_writer(root, corpus, [later]) as writer:
        for spec in writer.pending_groups():
            run_refusing(spec, corpus, refused)
        manifest = writer.finalise()
        state = writer.state()
        with pytest.raises(CacheError, match="cannot be planned again"):
            writer.replan([v for v in corpus.planned if corpus.name_of(v) == "a"])
    assert (manifest.complete, manifest.corpus.failed) == (True, 3)
    assert manifest.row_space == before.row_space
    failed = {v for v, outcome in state.outcomes.items() if outcome.status == "failed"}
    assert failed == {corpus.id_of(name) for name in ("a", "c", "bad")}
    assert state.outcomes[corpus.id_of("a")].error == "teacher beta gave NaN: frame 3"
    assert state.decoded[corpus.id_of("c")].frame_count == 150
    assert verify_cache(root).problems == ()
    cache = TargetCache.open(root)
    rows = cache.index.rows_of(corpus.id_of("b"), [0, 29])
    said = caches.logits_of(corpus.id_of("b"), first, np.array([0, 29]))
    assert np.allclose(cache.targets("alpha").logits(rows), said, atol=0.01)
    assert np.isfinite(cache.targets("beta").logits(rows)).all()
    gone = cache.index.rows_of(corpus.id_of("c"), range(150))
    assert np.isnan(cache.targets("beta").logits(gone)).all()
    assert np.isfinite(cache.targets("alpha").logits(gone)).all()
    assert set(cache.video_ids) - set(cache.targets("beta").video_ids) == {
        corpus.id_of(name) for name in refused
    }
    assert len(cache.targets("alpha").of(corpus.id_of("c"))) == 150
    with pytest.raises(CacheError, match=f"beta has no targets for video {corpus.id_of('c')}"):
        cache.targets("beta").of(corpus.id_of("c"))


def test_a_video_without_answers_of_a_first_teacher_fails(
    tmp_path: Path, corpus: Any, teachers: list[Any]
) -> None:
    with caches.open_writer(tmp_path / "cache", corpus, teachers) as writer:
        for spec in writer.pending_groups():
            run_refusing(spec, corpus, {"a", "c"})
        manifest = writer.finalise()
    assert (manifest.complete, manifest.corpus.failed, manifest.row_space.rows) == (True, 3, 99)
    assert verify_cache(tmp_path / "cache").problems == ()
