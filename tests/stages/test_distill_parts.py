"""Incomplete caches and clips without targets: what exists is used, what is missing is reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.progress import RecordingProgress

from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import (
    CacheCorruptError,
    CacheError,
    ConfigError,
    DistInitError,
)
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.run import DistillResult, StudentRecord
from distinit.schemas.thresholds import TargetShare
from distinit.stages.distill import distill
from distinit.stages.extract import extract


def extracted(corpus: Path, root: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "videos": str(corpus),
        "teachers": [{"name": "null", "id": "one"}, {"name": "null", "id": "two"}],
        "cache": str(root / "cache"),
        "frames": str(root / "frames"),
        "unit_rows": 64,
    }
    values["teachers"][1]["resize"] = "fast"
    extract(ExtractConfig.model_validate(values | changes))
    return root


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete cache: targets of two teachers for five videos, in several units."""
    return extracted(corpus, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "copy")


def trained(root: Path, out: str = "run", **changes: Any) -> tuple[DistillResult, list[str]]:
    values: dict[str, Any] = {
        "cache": str(root / "cache"),
        "frames": str(root / "frames"),
        "out": str(root / out),
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 32},
        "optimizer": {"clips_per_epoch": 16, "epochs": 1},
        "runtime": {"batch_size": 4, "device": "cpu"},
        "targets": [{"teacher": "one"}],
    }
    progress = RecordingProgress()
    result = distill(DistillConfig.model_validate(values | changes), progress=progress)
    return result, progress.messages


def manifest_of(root: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((root / "cache" / "manifest.json").read_text())
    return stored


def write_manifest(root: Path, **values: Any) -> None:
    path = root / "cache" / "manifest.json"
    path.write_text(json.dumps(manifest_of(root) | values))


def record_of(root: Path) -> StudentRecord:
    return StudentRecord.model_validate_json((root / "run" / "student.json").read_bytes())


EVERY = TargetShare(with_target=1, kept=1)


def test_a_complete_cache_causes_no_warnings(copy: Path) -> None:
    result, messages = trained(copy)
    assert (result.targets, result.absent_teachers) == ({"one": EVERY}, ())
    assert (result.left_out.failed, result.incomplete_teachers) == (2, {})
    assert "one: 100.0% of the clips had a target" in result.summary()
    assert "left out: 2 failed" in messages
    digest = manifest_of(copy)["content_digest"]
    assert result.cache_digest == record_of(copy).cache_digest == digest


def test_a_manifest_whose_digest_differs_from_the_commits_is_refused(copy: Path) -> None:
    real = manifest_of(copy)["content_digest"]
    write_manifest(copy, content_digest="0" * 64)
    with pytest.raises(CacheCorruptError, match="is not that of the commit records") as caught:
        trained(copy)
    assert caught.value.found == f"content_digest {real}"
    assert not (copy / "run").exists()
    write_manifest(copy, content_digest=real)
    commit = min((copy / "cache" / "teachers" / "two" / "commits").iterdir())
    commit.unlink()  # of a teacher that is not even used
    with pytest.raises(CacheCorruptError, match="are missing"):
        trained(copy)


def test_a_copy_with_the_folder_of_one_teacher_can_be_used(copy: Path) -> None:
    shutil.rmtree(copy / "cache" / "teachers" / "two")
    result, messages = trained(copy, targets=[{}])
    assert result.targets == {"one": EVERY}
    assert result.absent_teachers == ("two",)
    assert any("1 more teacher whose folder is not in this copy: two" in m for m in messages)
    # The digest of the data that was read, not the one in the manifest.
    claimed = manifest_of(copy)["content_digest"]
    assert record_of(copy).cache_digest == result.cache_digest != claimed
    with pytest.raises(CacheError, match="folder of teacher two is not in this copy"):
        trained(copy, targets=[{"teacher": "two"}])
    shutil.rmtree(copy / "cache" / "teachers" / "one")
    with pytest.raises(CacheError, match="none of its teachers"):
        trained(copy)


def incomplete(root: Path, teacher: str, units: int) -> int:
    """Keep only the first ``units`` of a teacher; returns the number of all units."""
    commits = sorted((root / "cache" / "teachers" / teacher / "commits").iterdir())
    for commit in commits[units:]:
        commit.unlink()
    teachers = manifest_of(root)["teachers"]
    teachers[teacher]["units_committed"] = units
    write_manifest(root, complete=False, content_digest="", teachers=teachers)
    return len(commits)


def test_an_incomplete_teacher_is_used_for_the_videos_it_has(copy: Path) -> None:
    planned = incomplete(copy, "two", 1)
    assert planned > 2
    result, messages = trained(copy, "alone", targets=[{"teacher": "two"}])
    assert result.targets == {"two": EVERY}
    assert result.incomplete_teachers == {"two": (1, planned)}
    assert 0 < result.videos < 5
    assert result.left_out.without_targets == 5 - result.videos
    assert f"note: teacher two has 1 of {planned} units" in messages
    # Together with a complete teacher, clips without a target do not count in its mean.
    both, messages = trained(copy, targets=[{"teacher": "one"}, {"teacher": "two"}])
    assert both.videos == 5
    assert both.targets["one"] == EVERY
    share = both.targets["two"]
    assert 0 < share.with_target == share.kept < 1
    assert "of the clips had a target" in both.summary()
    assert len(record_of(copy).cache_digest or "") == 64
    # A complete teacher of an incomplete cache counts as complete.
    one, messages = trained(copy, "one")
    assert one.incomplete_teachers == {}
    assert "note: the cache is incomplete: only the stored targets are used" in messages


def test_a_teacher_without_units_is_an_error(copy: Path) -> None:
    incomplete(copy, "two", 0)
    with pytest.raises(DistInitError, match="has a target"):
        trained(copy, targets=[{"teacher": "two"}])


def test_videos_missing_from_the_store_are_left_out(
    copy: Path, corpus: Path, tmp_path: Path
) -> None:
    few = shutil.copytree(corpus / "b", tmp_path / "few")
    extracted(few, tmp_path / "other")
    (tmp_path / "other" / "cache").rename(tmp_path / "unused")
    shutil.copytree(copy / "cache", tmp_path / "other" / "cache")
    result, messages = trained(tmp_path / "other")
    assert (result.videos, result.left_out.not_in_store) == (2, 3)
    (line,) = [text for text in messages if text.startswith("left out")]
    assert line == "left out: 2 failed, 3 not in the frame store"
    assert "  a.mp4 (not in the frame store)" in messages
    assert line in result.summary()


@pytest.mark.parametrize("sampling", [{"mode": "stride", "stride": 16}, {"mode": "fps", "fps": 1}])
def test_every_clip_of_a_sparse_cache_has_a_target(
    corpus: Path, tmp_path: Path, sampling: dict[str, Any]
) -> None:
    extracted(corpus, tmp_path, sampling=sampling)
    result, _ = trained(tmp_path)
    assert result.targets == {"one": EVERY}
    assert result.loss > 0.5, "the loss must not shrink with the number of rows"


def test_a_filter_that_can_keep_no_clip_is_an_error_before_training(copy: Path) -> None:
    target = {"teacher": "one", "filter": {"max_entropy_nats": 1e-9}}
    with pytest.raises(ConfigError, match="filter of teacher one keeps no clip") as caught:
        trained(copy, targets=[target])
    assert "for the most confident frame of the cache" in str(caught.value.found)
    assert not (copy / "run").exists()


def test_a_filter_that_keeps_no_clip_is_refused_before_training(copy: Path) -> None:
    """The targets are means of several logits, whose entropy may be lower than that of each."""
    target = {"teacher": "one", "pick": "all", "filter": {"max_entropy_nats": 1e-9}}
    with pytest.raises(ConfigError, match="teacher one keeps no clip"):
        trained(copy, targets=[target])
    assert not (copy / "run" / "metrics.jsonl").exists()


def test_a_run_directory_inside_its_inputs_is_refused(copy: Path) -> None:
    for out in ("cache/run", "frames", "cache/teachers/x"):
        with pytest.raises(ConfigError, match="lies inside"):
            trained(copy, out)
    assert not (copy / "cache" / "run").exists()
