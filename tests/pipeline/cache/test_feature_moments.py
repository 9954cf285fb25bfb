"""Moments of feature vectors: the same for any division into blocks, exact for large means."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.caches import make_teacher
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.cache import feature_moments
from distinit.pipeline.cache.feature_moments import (
    FeatureMoments,
    merged,
    moments_of,
    moments_of_rows,
)


@given(
    cuts=st.lists(st.integers(0, 60), max_size=5),
    offset=st.sampled_from([0.0, 1.0, -3e4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_merged_parts_are_the_moments_of_the_whole(
    cuts: list[int], offset: float, seed: int
) -> None:
    whole_NC = np.random.default_rng(seed).standard_normal((60, 4)) + offset
    total = FeatureMoments.empty(4)
    edges = [0, *sorted(cuts), 60]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            total = merged(total, moments_of(whole_NC[start:stop]))
    assert total.vectors == 60
    np.testing.assert_allclose(total.mean_C, whole_NC.mean(axis=0), rtol=1e-12, atol=1e-13)
    expected_CC = np.cov(whole_NC.T, bias=True) * 60
    np.testing.assert_allclose(total.scatter, expected_CC, rtol=1e-9, atol=1e-7)


def test_a_mean_that_is_large_against_the_deviation_costs_no_precision() -> None:
    small_NC = np.arange(12.0).reshape(6, 2)
    total = merged(moments_of(small_NC[:2] + 2.0**40), moments_of(small_NC[2:] + 2.0**40))
    assert total.mean_C.tolist() == [2.0**40 + 5, 2.0**40 + 6]
    assert total.scatter.tolist() == [[70.0, 70.0], [70.0, 70.0]]


def test_a_constant_channel_has_exactly_no_variance() -> None:
    values_NC = np.full((5_000, 1), 0.1, np.float16)
    found = moments_of_rows(
        make_teacher("f", classes=1, target="features"), {"logits": values_NC}, np.arange(5_000)
    )
    assert (found.vectors, found.scatter.tolist()) == (5_000, [[0.0]])
    assert found.mean_C.tolist() == [float(np.float16(0.1))]


def test_each_cell_of_a_grid_is_a_vector() -> None:
    record = make_teacher("f", classes=8, target="features", pool="grid:2")
    stored_NC = np.array([[0, 1, 2, 3, 4, 5, 6, 7], [9] * 8, [8, 9, 10, 11, 12, 13, 14, 15]], "<f2")
    found = moments_of_rows(record, {"logits": stored_NC}, np.array([0, 2]))
    assert found.vectors == 8
    assert found.mean_C.tolist() == [7.0, 8.0]
    assert found.scatter.tolist() == [[168.0, 168.0], [168.0, 168.0]]


def test_rows_without_an_output_are_left_out() -> None:
    record = make_teacher("f", classes=2, target="features")
    stored_NC = np.array([[1, 2], [np.nan, np.nan], [3, 2]], "<f2")
    found = moments_of_rows(record, {"logits": stored_NC}, np.arange(3))
    assert (found.vectors, found.mean_C.tolist()) == (2, [2.0, 2.0])
    assert found.scatter.tolist() == [[2.0, 0.0], [0.0, 0.0]]


def test_many_channels_have_only_variances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_moments, "MAX_COVARIANCE_CHANNELS", 1)
    a, b = moments_of(np.array([[0.0, 1.0], [2.0, 1.0]])), moments_of(np.array([[4.0, 4.0]]))
    found = merged(a, b)
    assert (found.mean_C.tolist(), found.scatter.tolist()) == ([2.0, 2.0], [8.0, 6.0])
