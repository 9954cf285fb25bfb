"""Videos without targets of some teacher: they stay so, or another cache fills the gap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.caches import (
    Corpus,
    hash_of,
    logits_of,
    make_teacher,
    open_writer,
    outcome_of,
    run_all,
    run_task,
)
from helpers.derived_caches import assert_valid
from helpers.hostile import HOSTILE_NAMES

from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.progress import NullProgress
from distinit.schemas.errors import CacheMismatchError
from distinit.stages.cache_merge import cache_merge
from distinit.stages.cache_subset import SubsetChoice, cache_subset

CORPUS = Corpus({"a": 30, "b": 30, "d": 5, "e": 64, "c": 150})
ALPHA = make_teacher("alpha")
BETA = make_teacher("beta", classes=5, encoding="int8")
GAMMA = make_teacher("gamma", weights="6" * 64)
GONE = frozenset(CORPUS.id_of(name) for name in "ac")


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos a and c were gone when beta and gamma were added; gamma refused d."""
    root = tmp_path_factory.mktemp("gaps") / "cache"
    run_all(root, CORPUS, [ALPHA])
    for teacher in (BETA, GAMMA):
        with open_writer(root, CORPUS, [teacher]) as writer:
            latest = {
                video_id: entry.with_file(entry.video.file, in_corpus=video_id not in GONE)
                for video_id, entry in writer.plan.latest.items()
            }
            writer.set_corpus(latest, GONE)
            for spec in writer.pending_groups():
                if teacher is BETA:
                    run_task(spec, CORPUS)
                    continue
                task = GroupWriter(spec)
                for video in spec.videos:
                    name = CORPUS.name_of(video)
                    index_N = np.arange(CORPUS.frames[name])
                    if name == "d":
                        task.refuse_video(outcome_of(video.video_id, 0, "all NaN"))
                        continue
                    logits = {GAMMA.id: logits_of(video.video_id, GAMMA, index_N)}
                    hash_N = hash_of(video.video_id, index_N)
                    task.add(video, index_N, index_N * 512, "1/12800", hash_N, logits)
                    task.finish_video(outcome_of(video.video_id, len(index_N)))
                task.commit()
            assert writer.finalise().complete
    return root


def test_a_copy_has_the_same_gaps(gaps: Path, tmp_path: Path) -> None:
    result = cache_subset(gaps, tmp_path / "all", SubsetChoice(), progress=NullProgress())
    assert assert_valid(tmp_path / "all") == result.content_digest
    assert result.content_digest == TargetCache.open(gaps).manifest.content_digest
    assert not GONE & set(TargetCache.open(tmp_path / "all").targets("beta").video_ids)


def test_a_gap_of_another_teacher_does_not_matter(gaps: Path, tmp_path: Path) -> None:
    choice = SubsetChoice(teachers=("alpha",))
    assert cache_subset(gaps, tmp_path / "one", choice, progress=NullProgress()).failed == 0
    assert_valid(tmp_path / "one")


def test_a_merge_fills_the_gaps(gaps: Path, tmp_path: Path) -> None:
    run_all(tmp_path / "other", Corpus({"a": 30, "c": 150, "d": 5}), [ALPHA, BETA, GAMMA])
    folders = [gaps, tmp_path / "other"]
    result = cache_merge(folders, tmp_path / "merged", progress=NullProgress())
    assert result.notes[0] == "1 video failed in one source and came from another: d.mp4"
    whole = run_all(tmp_path / "whole", CORPUS, [ALPHA, BETA, GAMMA])
    assert assert_valid(tmp_path / "merged") == whole.content_digest


def test_a_gap_in_the_corpus_of_the_result_is_refused(gaps: Path, tmp_path: Path) -> None:
    run_all(tmp_path / "other", Corpus({"a": 30}), [ALPHA])
    with pytest.raises(CacheMismatchError) as caught:
        cache_merge([gaps, tmp_path / "other"], tmp_path / "merged", progress=NullProgress())
    assert "teacher beta: 1 video without targets: a.mp4" in str(caught.value.found)


def test_hostile_names_of_videos_are_only_copied(tmp_path: Path) -> None:
    # The tables of a cache cannot hold the others: a NUL is refused when they are read.
    names = [name for name in HOSTILE_NAMES if name and "\0" not in name]
    run_all(tmp_path / "a", Corpus(dict.fromkeys(names[-3:], 4)), [ALPHA])
    run_all(tmp_path / "b", Corpus(dict.fromkeys(("../../up", "/etc/passwd"), 4)), [ALPHA])
    folders = [tmp_path / "a", tmp_path / "b"]
    result = cache_merge(folders, tmp_path / "merged", progress=NullProgress())
    assert_valid(tmp_path / "merged")
    assert (result.videos, result.rows) == (5, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "merged"]
