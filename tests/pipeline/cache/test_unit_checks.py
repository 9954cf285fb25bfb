"""The moments of features are computed in the pass that checks the units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import caches
from helpers.caches import CORPUS
from helpers.forging import ForgedUnit, forge

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.opening import read_valid_plan
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_manifest, read_teacher
from distinit.pipeline.cache.state import CacheState, read_state
from distinit.pipeline.cache.unit_check import check_unit
from distinit.pipeline.cache.unit_checks import check_units, threads_for
from distinit.pipeline.progress import NullProgress
from distinit.schemas.errors import CacheCorruptError


@pytest.fixture
def layout(tmp_path: Path) -> CacheLayout:
    teachers = [caches.make_teacher("f", target="features"), caches.make_teacher("logits")]
    caches.run_all(tmp_path / "c", CORPUS, teachers)
    return CacheLayout(tmp_path / "c")


def state_of(layout: CacheLayout) -> CacheState:
    manifest = read_manifest(layout)
    plan, _ = read_valid_plan(layout, manifest)
    return read_state(
        layout, plan, {name: read_teacher(layout, name) for name in manifest.teachers}
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_moments_are_those_of_the_rows_of_each_unit(layout: CacheLayout, workers: int) -> None:
    state = state_of(layout)
    found = list(check_units(layout, state, (), workers, NullProgress(), {"f"}))
    assert [one.unit for one in found] == list(range(state.plan.units))
    assert len(found) > workers + 1
    targets = TargetCache.open(layout.root).targets("f")
    for one in found:
        assert one.moments.keys() == {"f"}
        rows_N = np.flatnonzero(targets.cache.index.video_number >= 0)
        rows_N = rows_N[rows_N // state.plan.capacity == one.unit]
        values_NC = targets.logits(rows_N).astype(np.float64)
        moments = one.moments["f"]
        assert moments.vectors == len(values_NC) > 0
        np.testing.assert_allclose(moments.mean_C, values_NC.mean(axis=0), atol=1e-14)
        expected_CC = np.cov(values_NC.T, bias=True) * len(values_NC)
        np.testing.assert_allclose(moments.scatter, expected_CC, atol=1e-12)
    assert not any(one.moments for one in check_units(layout, state, (), 1, NullProgress()))


def test_features_that_are_not_finite_are_a_problem_of_their_unit(layout: CacheLayout) -> None:
    def overflow(unit: ForgedUnit) -> None:
        (values_RC,) = unit.arrays.values()
        values_RC[unit.used_rows[2], 1] = np.inf

    with pytest.raises(CacheCorruptError, match="not finite"):
        forge(layout.root, "f", 1, overflow)  # all but the statistics
    state = state_of(layout)
    found = check_unit(layout, state, 1, (), {"f"})
    assert found.problems == ["unit-00001 of f: features that are not finite"]
    assert found.damaged_teachers == {"f"}
    assert check_unit(layout, state, 0, (), {"f"}).problems == []


@pytest.mark.parametrize(
    ("workers", "channels", "expected"),
    [
        (64, [], 64),
        (64, [768], 64),
        (64, [2_048], 32),
        (64, [4_096], 8),
        (64, [4_096, 4_096], 4),
        (4, [4_096], 4),
        (64, [8_192], 64),  # only variances
        (2, [4_096] * 10, 1),
    ],
)
def test_threads_are_limited_by_the_memory_of_moments(
    workers: int, channels: list[int], expected: int
) -> None:
    assert threads_for(workers, channels) == expected
