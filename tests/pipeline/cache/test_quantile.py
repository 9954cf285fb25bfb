"""Exact quantiles: those of numpy, whatever the values and the size of the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.cache import quantile as quantile_module
from distinit.pipeline.cache.quantile import blocks_of, quantile, quantiles


@given(
    values=st.lists(st.floats(width=32, allow_infinity=False), max_size=40),
    fraction=st.floats(0.01, 1.0),
    block=st.integers(1, 50),
)
def test_the_quantile_is_numpys(values: list[float], fraction: float, block: int) -> None:
    values_N = np.array(values, np.float32)
    used = values_N[~np.isnan(values_N)].astype(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantile_module, "_BLOCK_ROWS", block)
        found = quantile(values_N, fraction)
    if len(used):
        assert found == np.quantile(used, fraction)
    else:
        assert np.isnan(found)


def test_the_quantile_of_many_entropies_is_numpys() -> None:
    entropies = np.random.default_rng(0).exponential(1.3, 50_001).astype(np.float32)
    entropies[::7] = np.nan
    used = entropies[~np.isnan(entropies)].astype(np.float64)
    for fraction in (0.05, 0.25, 1 / 3, 0.5, 0.95):
        assert quantile(entropies, fraction) == np.quantile(used, fraction)


def test_several_quantiles_are_those_computed_one_by_one() -> None:
    values = np.random.default_rng(1).normal(size=10_007).astype(np.float32)
    fractions = (0.9, 0.0, 0.1, 0.5, 1.0, 0.5)
    found = quantiles(lambda: blocks_of(values), fractions)
    assert found == [quantile(values, fraction) for fraction in fractions]
    assert (found[1], found[4]) == (values.min(), values.max())


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_without_values_every_quantile_is_nan(values: list[float]) -> None:
    found = quantiles(lambda: blocks_of(np.array(values, np.float32)), (0.0, 0.5))
    assert np.isnan(found).tolist() == [True, True]
