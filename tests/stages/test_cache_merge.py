"""Merging caches: exact copies, the digest of one extraction, conflicts by row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.caches import CORPUS, TEACHERS, Corpus, make_teacher, resign, run_all
from helpers.command_line import run_command
from helpers.derived_caches import ALL_TEACHERS, assert_valid, part, stored_bytes

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.progress import NullProgress
from distinit.schemas.combining import MergeResult
from distinit.schemas.errors import (
    CacheCorruptError,
    CacheError,
    CacheMismatchError,
    ConfigError,
)
from distinit.schemas.video import SamplingConfig
from distinit.stages.cache_info import cache_info
from distinit.stages.cache_merge import OnConflict, cache_merge

SAME_WITH_OTHER_OUTPUTS = make_teacher("gamma")
"""The identity of alpha; the made-up logits depend on the id."""


def merge(
    folders: Sequence[Path],
    out: Path,
    teachers: Sequence[str] = (),
    on_conflict: OnConflict = "refuse",
) -> MergeResult:
    return cache_merge(
        folders, out, teachers=teachers, on_conflict=on_conflict, progress=NullProgress()
    )


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two overlapping parts of the corpus, and one extraction of all of it."""
    root = tmp_path_factory.mktemp("merge")
    run_all(root / "a", part("abcd"), ALL_TEACHERS)
    run_all(root / "b", part(["d", "e", "bad"]), ALL_TEACHERS)
    run_all(root / "whole", CORPUS, ALL_TEACHERS)
    return root / "a", root / "b", root / "whole"


def test_parts_of_a_corpus_become_the_cache_of_one_extraction(
    halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    a, b, whole = halves
    result = merge([a, b], tmp_path / "merged")
    assert assert_valid(tmp_path / "merged") == result.content_digest
    assert result.content_digest == TargetCache.open(whole).manifest.content_digest
    assert (result.videos, result.failed, result.rows) == (6, 1, 279)
    assert (result.compared, result.conflict_count) == (4 * 5, 0)
    for name in ("plan.parquet", "frames/unit-00000.parquet", "teachers/beta/logits/c/0/0"):
        assert (tmp_path / "merged" / name).read_bytes() == (whole / name).read_bytes()


def test_every_stored_bit_is_copied(halves: tuple[Path, Path, Path], tmp_path: Path) -> None:
    a, b, _ = halves
    merge([b, a], tmp_path / "merged")
    for name in "abcde":
        source = a if name in "abcd" else b
        for teacher in ALL_TEACHERS:
            video_id = CORPUS.id_of(name)
            expected = stored_bytes(source, teacher.id, video_id)
            assert stored_bytes(tmp_path / "merged", teacher.id, video_id) == expected


def test_the_sources_are_recorded_and_shown(
    halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    a, b, _ = halves
    merge([a, b], tmp_path / "merged")
    digests = [TargetCache.open(folder).manifest.content_digest for folder in (a, b)]
    derivation = TargetCache.open(tmp_path / "merged").manifest.derived_from
    assert derivation is not None
    assert [source.content_digest for source in derivation.sources] == digests
    assert [source.videos for source in derivation.sources] == [4, 2]
    fidelity = TargetCache.open(a).teachers["beta"].fidelity
    assert derivation.sources[0].teachers["beta"].fidelity == fidelity
    code, shown = run_command(["cache", "info", str(tmp_path / "merged")])
    assert (code, "merge of 2 caches" in shown, digests[1] in shown) == (0, True, True)
    assert f"source {digests[0]}: 4 videos" in (tmp_path / "merged" / "README.md").read_text()
    told = cache_info(tmp_path / "merged").summary()
    assert f"source {digests[0]}: 4 videos taken from it" in told


def test_an_extracted_cache_says_nothing_of_sources(halves: tuple[Path, Path, Path]) -> None:
    manifest = json.loads((halves[2] / "manifest.json").read_text())
    assert "derived_from" not in manifest


def test_a_merge_that_is_repeated_changes_nothing(
    halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    merge(halves[:2], out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    merge(halves[:2], out)
    assert before == {p: p.stat().st_mtime_ns for p in before}
    with pytest.raises(CacheMismatchError, match="holds another cache"):
        merge([halves[1], halves[0]], out)


def test_a_conflict_is_named_by_row_and_nothing_is_written(
    halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    a, other = halves[0], tmp_path / "other"
    run_all(other, part("d"), [SAME_WITH_OTHER_OUTPUTS])
    result = merge([a, other], tmp_path / "merged", teachers=["alpha"])
    assert (result.exit_code, result.conflict_count, result.compared) == (1, 5, 5)
    assert [c.frame_index for c in result.conflicts] == [0, 1, 2, 3, 4]
    assert {(c.path, c.teacher, c.what) for c in result.conflicts} == {
        ("d.mp4", "alpha", "targets")
    }
    assert "logits, entropy_nats" in result.conflicts[0].detail
    told = result.summary()
    assert "d.mp4 frame 0, teacher alpha: targets of cache 1 and 2" in told
    assert f"  cache 1   {a}\n  cache 2   {other}\n" in told
    assert not (tmp_path / "merged").exists()


def test_a_choice_between_conflicting_rows_is_explicit_and_recorded(
    halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    other, out = tmp_path / "other", tmp_path / "merged"
    run_all(other, part("d"), [SAME_WITH_OTHER_OUTPUTS])
    result = merge([other, halves[0]], out, teachers=["alpha"], on_conflict="first")
    assert (result.exit_code, result.conflict_count) == (0, 5)
    assert_valid(out)
    video_id = CORPUS.id_of("d")
    assert stored_bytes(out, "alpha", video_id) == stored_bytes(other, "gamma", video_id)
    derivation = TargetCache.open(out).manifest.derived_from
    assert derivation is not None
    assert derivation.parameters == {"on_conflict": "first", "conflicts": 5}


def test_other_frames_of_a_video_are_a_conflict(
    halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    fewer = Corpus({"d": 4, "e": 64})
    run_all(tmp_path / "fewer", fewer, ALL_TEACHERS)
    result = merge([halves[0], tmp_path / "fewer"], tmp_path / "merged")
    assert [(c.what, c.detail) for c in result.conflicts] == [
        ("frame_count", "5 in cache 1, 4 in cache 2"),
        ("rows", "5 in cache 1, 4 in cache 2"),
    ]


def test_a_video_that_failed_in_one_cache_is_taken_from_the_other(tmp_path: Path) -> None:
    run_all(tmp_path / "a", Corpus({"a": 30, "d": 5}, frozenset({"d"})), TEACHERS)
    run_all(tmp_path / "b", Corpus({"d": 5}), TEACHERS)
    result = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert result.notes == ("1 video failed in one source and came from another: d.mp4",)
    assert TargetCache.open(tmp_path / "merged").video_ids == tuple(
        sorted(CORPUS.id_of(name) for name in "ad")
    )
    assert_valid(tmp_path / "merged")


def test_teachers_under_other_ids_are_recognised(tmp_path: Path) -> None:
    run_all(tmp_path / "a", part("ab"), [make_teacher("alpha")])
    run_all(tmp_path / "b", part("cd"), [make_teacher("renamed")])
    result = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert result.notes == ("teacher renamed of cache 2 is alpha here",)
    assert list(TargetCache.open(tmp_path / "merged").teachers) == ["alpha"]
    assert_valid(tmp_path / "merged")


def test_another_teacher_of_the_same_id_is_refused_field_by_field(tmp_path: Path) -> None:
    run_all(tmp_path / "a", part("ab"), [make_teacher("alpha")])
    run_all(tmp_path / "b", part("cd"), [make_teacher("alpha", weights="2" * 64, encoding="int8")])
    with pytest.raises(CacheMismatchError) as caught:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert f"weights_sha256: {'0' * 64} in cache 1, {'2' * 64} in cache 2" in str(
        caught.value.found
    )
    assert "encoding: float16 in cache 1, int8 in cache 2" in str(caught.value.found)
    assert not (tmp_path / "merged").exists()


def test_a_teacher_must_cover_all_videos(tmp_path: Path) -> None:
    run_all(tmp_path / "a", part("ab"), TEACHERS)
    run_all(tmp_path / "b", part("bc"), TEACHERS[:1])
    with pytest.raises(CacheMismatchError) as caught:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert caught.value.found == "teacher beta: 1 video without targets: c.mp4"
    result = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged", teachers=["alpha"])
    assert list(result.fidelity) == ["alpha"]
    assert_valid(tmp_path / "merged")


def test_a_teacher_of_one_cache_is_kept_where_it_covers_all(tmp_path: Path) -> None:
    run_all(tmp_path / "a", part("abc"), TEACHERS[:1])
    run_all(tmp_path / "b", part("abc"), TEACHERS)
    result = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert list(result.fidelity) == ["alpha", "beta"]
    whole = run_all(tmp_path / "whole", part("abc"), TEACHERS)
    assert assert_valid(tmp_path / "merged") == whole.content_digest


def test_two_contents_of_one_path_are_two_videos(tmp_path: Path) -> None:
    run_all(tmp_path / "a", part("a"), TEACHERS)
    run_all(tmp_path / "b", part("b"), TEACHERS)
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert TargetCache.open(folder).manifest.corpus.videos == 1
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert TargetCache.open(tmp_path / "merged").manifest.corpus.videos == 2


def test_caches_of_another_sampling_are_refused(tmp_path: Path) -> None:
    run_all(tmp_path / "a", part("a"), TEACHERS)
    stride = SamplingConfig(mode="stride", stride=2)
    run_all(tmp_path / "b", part("b"), TEACHERS, sampling=stride)
    with pytest.raises(CacheMismatchError, match="another sampling"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")


def test_one_cache_and_a_result_inside_of_a_source_are_refused(
    halves: tuple[Path, Path, Path],
) -> None:
    with pytest.raises(ConfigError, match="cannot merge this number"):
        merge(halves[:1], halves[0].parent / "new")
    with pytest.raises(ConfigError, match="lies inside"):
        merge(halves[:2], halves[0] / "new")
    with pytest.raises(ConfigError, match="a cache that is read"):
        merge(halves[:2], halves[0])


@pytest.mark.parametrize(
    "name",
    [
        "frames/unit-00000.parquet",
        "teachers/alpha/logits/c/0/0",
        "teachers/beta/confidence/unit-00000.parquet",
        "teachers/beta/commits/unit-00000.json",
        "videos.parquet",
        "README.md",
    ],
)
def test_a_damaged_source_is_refused_by_the_name_of_its_file(
    halves: tuple[Path, Path, Path], tmp_path: Path, name: str
) -> None:
    damaged = Path(shutil.copytree(halves[0], tmp_path / "damaged"))
    data = bytearray((damaged / name).read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / name).write_bytes(data)
    with pytest.raises(CacheCorruptError) as caught:
        merge([damaged, halves[1]], tmp_path / "merged")
    assert Path(name).name in f"{caught.value.problem} {caught.value.found}"
    assert not (tmp_path / "merged").exists()


def test_a_source_whose_records_were_changed_with_its_values_is_refused(
    halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(halves[0], tmp_path / "damaged"))
    shutil.copy(damaged / "teachers/alpha/logits/c/1/0", damaged / "teachers/alpha/logits/c/0/0")
    resign(damaged)
    with pytest.raises(CacheCorruptError) as caught:
        merge([damaged, halves[1]], tmp_path / "merged")
    assert "unit-00000 of alpha" in str(caught.value.found)


def test_links_in_a_source_are_refused(halves: tuple[Path, Path, Path], tmp_path: Path) -> None:
    linked = Path(shutil.copytree(halves[0], tmp_path / "linked"))
    shard = linked / "teachers/alpha/logits/c/0/0"
    shard.unlink()
    shard.symlink_to(halves[0] / "teachers/alpha/logits/c/0/0")
    with pytest.raises(CacheCorruptError, match="damaged, or was changed"):
        merge([linked, halves[1]], tmp_path / "merged")


def test_an_incomplete_source_is_refused(halves: tuple[Path, Path, Path], tmp_path: Path) -> None:
    partial = Path(shutil.copytree(halves[0], tmp_path / "partial"))
    manifest = json.loads((partial / "manifest.json").read_text())
    manifest |= {"complete": False, "content_digest": ""}
    (partial / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CacheError, match="is not complete"):
        merge([partial, halves[1]], tmp_path / "merged")


def test_a_folder_with_other_files_is_not_written_to(
    halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(CacheError, match="has content but no manifest"):
        merge(halves[:2], tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["a.txt"], "no .lock"
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"


def test_another_cache_at_the_target_stays_as_it_is(
    halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    target = Path(shutil.copytree(halves[2], tmp_path / "other"))
    (target / ".lock").unlink(missing_ok=True)
    with pytest.raises(CacheMismatchError, match="holds another cache"):
        merge(halves[:2], target)
    assert not (target / ".lock").exists()


def test_the_command_prints_conflicts_and_ends_with_1(
    halves: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(tmp_path / "other", part("d"), [SAME_WITH_OTHER_OUTPUTS])
    monkeypatch.chdir(tmp_path)
    words = ["cache", "merge", str(halves[0]), "other", "--out", "merged", "--teacher", "alpha"]
    code, shown = run_command([*words, "--quiet"])
    assert (code, "CONFLICTS: 5 conflicts: nothing was written" in shown) == (1, True)
    code, shown = run_command([*words, "--quiet", "--json", "--on-conflict", "first"])
    assert (code, len(json.loads(shown)["conflicts"])) == (0, 5)


def test_what_the_owners_state_is_never_lost(tmp_path: Path) -> None:
    for name, license_name in (("a", "CC-BY-4.0"), ("b", "MIT")):
        run_all(tmp_path / name, part(name), TEACHERS[:1])
        words = ["cache", "describe", str(tmp_path / name), "--source", "film archive"]
        assert run_command([*words, "--license", license_name])[0] == 0
    result = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert_valid(tmp_path / "merged")
    manifest = TargetCache.open(tmp_path / "merged").manifest
    assert manifest.provenance is not None
    assert manifest.provenance.stated == {"source": "film archive"}
    assert manifest.derived_from is not None
    licenses = [s.provenance.license for s in manifest.derived_from.sources if s.provenance]
    assert licenses == ["CC-BY-4.0", "MIT"]
    assert any(note.startswith("license: the sources differ") for note in result.notes)
