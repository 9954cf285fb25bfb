"""Subsets of a cache: exact copies, the choice of videos, and what extract does with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.caches import CORPUS, Corpus, make_teacher, open_writer, run_all
from helpers.command_line import run_command
from helpers.derived_caches import ALL_TEACHERS, assert_valid, part, stored_bytes

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.progress import NullProgress
from distinit.schemas.combining import DerivedCache
from distinit.schemas.errors import CacheError, ConfigError
from distinit.stages.cache_subset import SubsetChoice, cache_subset


def subset(folder: Path, out: Path, choice: SubsetChoice) -> DerivedCache:
    return cache_subset(folder, out, choice, progress=NullProgress())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("subset") / "source"
    run_all(root, CORPUS, ALL_TEACHERS)
    return root


def digest_of(root: Path) -> str:
    return TargetCache.open(root).manifest.content_digest


def test_the_subset_of_everything_is_the_source(source: Path, tmp_path: Path) -> None:
    result = subset(source, tmp_path / "all", SubsetChoice())
    assert assert_valid(tmp_path / "all") == result.content_digest == digest_of(source)
    fidelity = {n: r.losses[0] for n, r in TargetCache.open(source).teachers.items()}
    assert result.fidelity == fidelity


def test_a_subset_is_the_extraction_of_its_videos(source: Path, tmp_path: Path) -> None:
    names = ("[ac].mp4", CORPUS.id_of("bad"), "d.mp4")
    result = subset(source, tmp_path / "some", SubsetChoice(videos=names))
    expected = run_all(tmp_path / "expected", part(["a", "c", "d", "bad"]), ALL_TEACHERS)
    assert assert_valid(tmp_path / "some") == result.content_digest == expected.content_digest
    assert result.notes == ("2 videos of the source left out",)
    for name in "acd":
        for teacher in ALL_TEACHERS:
            video_id = CORPUS.id_of(name)
            expected_bytes = stored_bytes(source, teacher.id, video_id)
            assert stored_bytes(tmp_path / "some", teacher.id, video_id) == expected_bytes


def test_a_subset_of_teachers_has_the_digest_of_these_teachers(
    source: Path, tmp_path: Path
) -> None:
    chosen = ("topk", "features")
    result = subset(source, tmp_path / "two", SubsetChoice(teachers=chosen))
    assert result.content_digest == TargetCache.open(source).digest_of(chosen)
    assert_valid(tmp_path / "two")
    assert result.notes == ("2 teachers left out: alpha, beta",)


def test_videos_are_read_from_a_list(source: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"a.mp4\n# a comment\n{CORPUS.id_of('d')}\n")
    choice = SubsetChoice(video_list=tmp_path / "list.txt", teachers=("alpha",))
    assert subset(source, tmp_path / "some", choice).rows == 35


def test_the_entropy_keeps_whole_videos(source: Path, tmp_path: Path) -> None:
    cache = TargetCache.open(source)
    shares = {
        video_id: float((cache.targets("alpha").of(video_id).entropy_nats <= 0.5).mean())
        for video_id in cache.video_ids
    }
    least = sorted(shares.values())[2]
    choice = SubsetChoice(max_entropy_nats=0.5, min_share=least, entropy_of="alpha")
    subset(source, tmp_path / "some", choice)
    assert_valid(tmp_path / "some")
    kept = TargetCache.open(tmp_path / "some")
    assert set(kept.video_ids) == {v for v, share in shares.items() if share >= least}
    for video_id in kept.video_ids:
        assert len(kept.rows_of(video_id)) == len(cache.rows_of(video_id))
    derivation = kept.manifest.derived_from
    assert derivation is not None
    assert derivation.parameters["max_entropy_nats"] == 0.5
    assert derivation.parameters["entropy_of"] == "alpha"


def test_a_fraction_of_the_frames_gives_the_threshold(source: Path, tmp_path: Path) -> None:
    choice = SubsetChoice(keep_fraction=1.0, min_share=1.0, entropy_of="beta")
    result = subset(source, tmp_path / "some", choice)
    assert (result.videos, result.rows) == (5, 279)  # the video that failed has no frames
    choice = SubsetChoice(keep_fraction=1.0, entropy_of="beta")
    again = subset(tmp_path / "some", tmp_path / "again", choice)
    assert (again.videos, again.notes[0].split(":")[0]) == (5, "all videos are kept")


def test_wrong_choices_are_explained(source: Path, tmp_path: Path) -> None:
    for choice, problem in (
        (SubsetChoice(videos=("e.mp5",)), "the cache has no video"),
        (SubsetChoice(videos=("x*.mp4",)), "the cache has no video"),
        (SubsetChoice(teachers=("gamma",)), "there is no teacher"),
        (SubsetChoice(max_entropy_nats=1.0), "which teacher's entropies"),
        (SubsetChoice(max_entropy_nats=1.0, entropy_of="features"), "has no entropies here"),
        (SubsetChoice(max_entropy_nats=1.0, keep_fraction=0.5), "contradict each other"),
    ):
        with pytest.raises(ConfigError, match=problem):
            subset(source, tmp_path / "out", choice)
    with pytest.raises(CacheError, match="no video is confident enough"):
        subset(source, tmp_path / "out", SubsetChoice(max_entropy_nats=0.0, entropy_of="alpha"))
    few = SubsetChoice(max_entropy_nats=0.01, min_share=0.5, entropy_of="alpha")
    with pytest.raises(CacheError) as caught:
        subset(source, tmp_path / "out", few)
    assert caught.value.expected == "a video with at most 0.01 nats in 0.5 of its frames"
    assert not (tmp_path / "out").exists()


def test_extraction_continues_from_a_subset(source: Path, tmp_path: Path) -> None:
    """The videos that were left out are new ones."""
    subset(source, tmp_path / "some", SubsetChoice(videos=("[ab].mp4",), teachers=("alpha",)))
    teacher = TargetCache.open(tmp_path / "some").teachers["alpha"]
    with open_writer(tmp_path / "some", CORPUS, [teacher], unit_rows=None) as writer:
        pending = [v.path for spec in writer.pending_groups() for v in spec.videos]
    assert sorted(pending) == ["bad.mp4", "c.mp4", "d.mp4", "e.mp4"]
    manifest = run_all(tmp_path / "some", CORPUS, [teacher])
    assert manifest.complete
    assert manifest.derived_from is not None
    assert_valid(tmp_path / "some")


def test_superseded_rows_are_dropped(tmp_path: Path) -> None:
    """A video that spilled has two reservations; its subset has one."""
    spilling = Corpus({"a": 30, "b": 40}, announced={"a": 10})
    run_all(tmp_path / "spilled", spilling, [make_teacher("alpha")])
    subset(tmp_path / "spilled", tmp_path / "out", SubsetChoice())
    assert_valid(tmp_path / "out")
    state = TargetCache.open(tmp_path / "out").read_state()
    assert [entry.path for entry in state.plan.entries] == sorted(
        ("a.mp4", "b.mp4"), key=lambda path: CORPUS.id_of(path[0])
    )
    for name in "ab":
        video_id = CORPUS.id_of(name)
        expected = stored_bytes(tmp_path / "spilled", "alpha", video_id)
        assert stored_bytes(tmp_path / "out", "alpha", video_id) == expected


def test_the_command_names_what_was_left_out(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(source, tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    words = ["cache", "subset", "cache", "--video", "[ab].mp4", "--out", "ab", "--quiet"]
    code, shown = run_command(words)
    assert (code, "note: 4 videos of the source left out" in shown) == (0, True)
    assert "next: distinit cache verify ab" in shown
