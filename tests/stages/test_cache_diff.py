"""Differences of two caches: exact values, counts, files, exit codes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.caches import CORPUS, TEACHERS, Corpus, make_teacher, run_all
from helpers.command_line import run_command
from helpers.derived_caches import part

from distinit.pipeline.cache.confidence import fidelity_of
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.progress import NullProgress
from distinit.schemas.combining import CacheDiff
from distinit.schemas.errors import CacheMismatchError, ConfigError
from distinit.schemas.video import SamplingConfig
from distinit.stages.cache_diff import cache_diff
from distinit.stages.cache_encode import cache_encode

OTHER = make_teacher("other", weights="3" * 64)


def diff(a: Path, b: Path, teachers: tuple[str, ...] = (), out: Path | None = None) -> CacheDiff:
    return cache_diff(a, b, teachers=teachers, out=out, progress=NullProgress())


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The whole corpus with two teachers, and a part of it with one of them and another one."""
    root = tmp_path_factory.mktemp("diff")
    run_all(root / "a", CORPUS, TEACHERS)
    run_all(root / "b", part("abd"), [TEACHERS[0], OTHER])
    return root / "a", root / "b"


def test_a_cache_has_no_difference_to_itself(caches: tuple[Path, Path]) -> None:
    result = diff(caches[0], caches[0])
    assert result.identical
    assert (result.videos, result.videos_only_a, result.videos_only_b) == (5, 0, 0)
    for teacher in result.teachers:
        assert (teacher.frames, teacher.identical, teacher.largest_difference) == (279, 279, 0)
        assert (teacher.mean_kl_ab_nats, teacher.top1_agreement) == (0, 1)
        assert (teacher.entropy_drift_nats, teacher.entropy_distance_nats) == (0, 0)
        assert teacher.worst == ()


def test_what_only_one_cache_has_is_counted(caches: tuple[Path, Path]) -> None:
    result = diff(*caches)
    assert (result.videos, result.videos_only_a, result.videos_only_b) == (3, 2, 0)
    assert (result.teachers_only_a, result.teachers_only_b) == (("beta",), ("other",))
    assert [(t.teacher_a, t.frames, t.identical) for t in result.teachers] == [("alpha", 65, 65)]
    assert not result.identical


def test_the_values_are_those_of_the_definitions(caches: tuple[Path, Path]) -> None:
    (found,) = diff(*caches, ("alpha:other",)).teachers
    a, b = (TargetCache.open(folder) for folder in caches)
    x, y = a.targets("alpha"), b.targets("other")
    logits_a = np.concatenate([x.of(v).logits_NC for v in b.video_ids])
    logits_b = np.concatenate([y.of(v).logits_NC for v in b.video_ids])
    entropy_a = fidelity_of(logits_a, logits_a).entropy_nats
    entropy_b = fidelity_of(logits_b, logits_b).entropy_nats
    forward, backward = fidelity_of(logits_a, logits_b), fidelity_of(logits_b, logits_a)
    assert found.frames == 65
    assert found.mean_kl_ab_nats == pytest.approx(forward.kl_nats.mean())
    assert found.max_kl_ab_nats == pytest.approx(forward.kl_nats.max())
    assert found.mean_kl_ba_nats == pytest.approx(backward.kl_nats.mean())
    assert found.top1_agreement == forward.top1_agrees.mean()
    assert found.entropy_drift_nats == pytest.approx((entropy_b - entropy_a).mean())
    assert found.mean_entropy_error_nats == pytest.approx(np.abs(entropy_b - entropy_a).mean())
    exact = np.abs(np.sort(entropy_a) - np.sort(entropy_b)).mean()
    assert found.entropy_distance_nats == pytest.approx(exact, abs=np.log(7) / 1000)
    assert found.largest_difference == pytest.approx(np.abs(logits_a - logits_b).max())
    assert len(found.worst) == 20
    assert found.worst[0].kl_ab_nats == pytest.approx(forward.kl_nats.max())
    assert list(found.worst) == sorted(found.worst, key=lambda f: -(f.kl_ab_nats or 0))


def test_other_identities_are_noted(caches: tuple[Path, Path]) -> None:
    result = diff(*caches, ("alpha:other",))
    assert result.notes == (f"alpha: weights_sha256: {'0' * 64} in A, {'3' * 64} in B",)


def test_the_entropies_are_those_of_the_stored_targets(
    caches: tuple[Path, Path], tmp_path: Path
) -> None:
    """An encoding copies the confidence columns, so they would hide what it changed."""
    few, progress = tmp_path / "few", NullProgress()
    cache_encode(caches[0], few, "topk:2", teachers=("alpha",), progress=progress)
    result = diff(caches[0], few, ("alpha",))
    (found,) = result.teachers
    report = TargetCache.open(few).teachers["alpha"].fidelity
    assert report is not None
    assert report.mean_entropy_error_nats > 0.01
    assert found.mean_entropy_error_nats == pytest.approx(report.mean_entropy_error_nats, rel=1e-3)
    assert found.mean_kl_ab_nats == pytest.approx(report.mean_kl_nats, rel=1e-3)
    assert result.notes == (
        "alpha: encoded from: the teacher's outputs in A, float16 in B",
        "alpha: encoding: float16 in A, topk:2 in B",
    )


def test_frames_of_another_sampling_are_matched_by_their_number(tmp_path: Path) -> None:
    run_all(tmp_path / "a", Corpus({"d": 5}), TEACHERS[:1])
    run_all(tmp_path / "b", Corpus({"d": 3}), TEACHERS[:1], sampling=SamplingConfig())
    result = diff(tmp_path / "a", tmp_path / "b")
    assert (result.videos, result.frames_only_a, result.frames_only_b) == (1, 2, 0)
    assert result.teachers[0].identical == 3


def test_features_are_compared_without_entropies(tmp_path: Path) -> None:
    features = make_teacher("features", classes=9, target="features")
    run_all(tmp_path / "a", part("ad"), [features])
    run_all(tmp_path / "b", part("ad"), [features])
    (found,) = diff(tmp_path / "a", tmp_path / "b").teachers
    assert (found.frames, found.identical, found.mean_kl_ab_nats) == (35, 35, None)


def test_teachers_of_other_classes_are_refused(caches: tuple[Path, Path]) -> None:
    with pytest.raises(CacheMismatchError, match="cannot be compared"):
        diff(caches[0], caches[0], ("alpha:beta",))
    with pytest.raises(ConfigError, match="cache B has no teacher"):
        diff(*caches, ("beta",))


def test_the_files_hold_every_frame_and_the_result(
    caches: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = diff(*caches, ("alpha:other",), out)
    assert sorted(path.name for path in out.iterdir()) == [
        "alpha--other.pdf",
        "alpha--other.png",
        "diff.json",
        "frames.csv",
    ]
    rows = list(csv.DictReader((out / "frames.csv").read_text().splitlines()))
    assert len(rows) == 65
    mean = np.mean([float(row["kl_ab_nats"]) for row in rows])
    assert result.teachers[0].mean_kl_ab_nats == pytest.approx(mean)
    assert CacheDiff.model_validate_json((out / "diff.json").read_text()) == result


def test_differences_are_no_failure_unless_asked(caches: tuple[Path, Path]) -> None:
    words = ["cache", "diff", *map(str, caches), "--quiet"]
    code, shown = run_command(words)
    assert (code, "videos    3 in both, 2 only in A, 0 only in B" in shown) == (0, True)
    assert run_command([*words, "--fail-if-different"])[0] == 1
    same = ["cache", "diff", str(caches[0]), str(caches[0]), "--fail-if-different", "--json"]
    code, shown = run_command([*same, "--quiet"])
    assert (code, json.loads(shown)["videos"]) == (0, 5)


def test_results_are_not_written_into_a_cache(caches: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="lies inside"):
        diff(*caches, out=caches[0] / "out")
