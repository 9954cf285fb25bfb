"""Intervals equal published values, and behave at the ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distinit.pipeline.evaluation.intervals import (
    difference_interval,
    paired_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_published_values(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998) 873-890, table II, method 10
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((10, 10, 0, 10), 0.6075, 1.0),
    ],
)
def test_the_difference_equals_published_values(
    counts: tuple[int, int, int, int], low: float, high: float
) -> None:
    assert difference_interval(*counts) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_proportion_and_stays_in_range(counts: tuple[int, int]) -> None:
    low, high = wilson_interval(*counts)
    assert 0 <= low <= counts[0] / counts[1] + 1e-12
    assert counts[0] / counts[1] - 1e-12 <= high <= 1


@pytest.mark.parametrize(("gained", "lost", "same"), [(30, 10, 60), (0, 3, 17), (1, 1, 0)])
def test_the_paired_interval_equals_that_of_the_counts_of_changed_videos(
    gained: int, lost: int, same: int
) -> None:
    """Wald's interval for paired counts, with the unbiased variance."""
    total = gained + lost + same
    difference_V = np.repeat([1.0, -1.0, 0.0], [gained, lost, same])
    difference = (gained - lost) / total
    variance = ((gained + lost) / total - difference**2) / (total - 1)
    expected = difference + np.array([-1, 1]) * 1.959964 * np.sqrt(variance)
    assert paired_interval(difference_V) == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_paired_interval_is_that_of_the_mean_in_scipy() -> None:
    """Shares of correct runs, as several seeds give them."""
    difference_V = np.random.default_rng(0).choice([-1, -0.5, 0, 0.5, 1], 200)
    expected = stats.norm.interval(0.95, difference_V.mean(), stats.sem(difference_V))
    assert paired_interval(difference_V) == pytest.approx(expected, abs=1e-12)
