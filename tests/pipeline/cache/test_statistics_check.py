"""Verification computes the statistics again: a changed one is found and named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import caches
from helpers.caches import CORPUS
from helpers.progress import RecordingProgress
from safetensors.numpy import load, save

from distinit.pipeline.cache.cards import checksum_lines
from distinit.pipeline.cache.feature_moments import FeatureMoments, merged, moments_of
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.moments_file import StoredMoments, read_moments, write_moments
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.statistics_check import first_difference
from distinit.pipeline.cache.tree import list_tree
from distinit.pipeline.cache.verify import verify_cache
from distinit.schemas.errors import CacheCorruptError

FILE = "teachers/f/statistics.safetensors"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    caches.run_all(tmp_path / "c", CORPUS, [caches.make_teacher("f", target="features")])
    return tmp_path / "c"


def relist(root: Path) -> None:
    """Do what an attacker would: make the checksums match the files."""
    layout = CacheLayout(root)
    layout.checksums.write_text(checksum_lines(layout, list_tree(layout).files, {}))


def change(root: Path, changes: Mapping[str, float]) -> None:
    """Change some statistics: factors of a mean and a variance, and vectors to add."""
    stored = read_moments(root / FILE, 7)
    moments = stored.moments
    scatter_CC, mean_C = moments.scatter.copy(), moments.mean_C.copy()
    scatter_CC[3, 3] *= changes.get("variance", 1)
    mean_C[5] *= changes.get("mean", 1)
    vectors = moments.vectors + int(changes.get("vectors", 0))
    changed = FeatureMoments(vectors, mean_C, scatter_CC)
    write_moments(replace(stored, moments=changed), root / FILE)
    relist(root)


def test_right_statistics_are_no_problem(root: Path) -> None:
    progress = RecordingProgress()
    report = verify_cache(root, progress=progress)
    assert (report.problems, report.notes) == ((), ())
    assert [phase for phase, *_ in progress.started] == ["verify"], "in the same pass"
    assert FILE in (root / "manifest-sha256.txt").read_text()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"mean": 1 + 1e-6}, "mean of channel 5 is "),
        ({"variance": 1 + 1e-6}, "covariance of channels 3 and 3 is "),
        ({"vectors": 1}, "280 vectors, recomputed 279"),
    ],
)
def test_a_changed_statistic_is_named_with_the_command(
    root: Path, changes: dict[str, float], problem: str
) -> None:
    change(root, changes)
    (found,) = verify_cache(root).problems
    assert found.startswith(f"{FILE}: {problem}")
    assert found.endswith(f"; run `distinit cache statistics {root}`")


def test_only_listed_statistics_are_used(root: Path) -> None:
    def std() -> float:
        return float(TargetCache.open(root).targets("f").feature_statistics.std_C[3])

    right, listed = std(), (root / "manifest-sha256.txt").read_bytes()
    change(root, {"variance": 4})
    assert std() == 2 * right, "forged together with the list: only verify finds it"
    (root / "manifest-sha256.txt").write_bytes(listed)
    with pytest.raises(CacheCorruptError, match="does not match manifest-sha256") as caught:
        std()
    assert caught.value.problem.startswith(str(root / FILE))


def test_a_difference_within_rounding_is_accepted(root: Path) -> None:
    change(root, {"variance": 1 + 1e-11})
    assert verify_cache(root).ok


def test_a_flipped_bit_and_a_missing_file_are_found(root: Path) -> None:
    kept = (root / FILE).read_bytes()
    (root / FILE).write_bytes(kept[:-1] + b"\0")
    assert verify_cache(root).problems == (
        f"{FILE}: its sha256 is not that of its values; run `distinit cache statistics {root}`",
        f"{FILE}: its sha256 is not the one in manifest-sha256.txt",
    )
    (root / FILE).unlink()
    assert verify_cache(root, deep=False).problems == (f"{FILE}: missing",)


def test_statistics_of_other_rows_are_found(root: Path) -> None:
    tensors = load((root / FILE).read_bytes())
    stored = read_moments(root / FILE, 7)
    write_moments(replace(stored, content=bytes(32)), root / FILE)
    relist(root)
    assert verify_cache(root).problems == (
        f"{FILE}: belongs to other rows; run `distinit cache statistics {root}`",
    )
    (root / FILE).write_bytes(save(tensors))
    relist(root)
    assert verify_cache(root).ok


def test_a_file_that_is_not_on_the_list_is_not_part_of_the_cache(root: Path) -> None:
    caches.run_all(root.parent / "logits", CORPUS, [caches.make_teacher("f")])
    other = root.parent / "logits"
    (other / FILE).write_bytes((root / FILE).read_bytes())
    assert verify_cache(other).problems == (f"{FILE}: not part of the cache, remove it",)


def test_another_order_of_addition_is_within_the_tolerance() -> None:
    rows_NC = np.random.default_rng(1).standard_normal((4_000, 6)) * 1e-3 + 1e3
    forwards, backwards = FeatureMoments.empty(6), FeatureMoments.empty(6)
    for start in range(0, 4_000, 7):
        forwards = merged(forwards, moments_of(rows_NC[start : start + 7]))
    for stop in range(4_000, 0, -900):
        backwards = merged(backwards, moments_of(rows_NC[max(stop - 900, 0) : stop]))
    one, other = (StoredMoments(m, 1, b"") for m in (forwards, backwards))
    assert first_difference(one, other) == ""
