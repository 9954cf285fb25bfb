"""Rotations of PHI-S are orthogonal, and give all dimensions the same variance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinit.pipeline.distillation.rotation import equal_variance_rotation, hadamard_matrix


@pytest.mark.parametrize("size", [1, 2, 4, 12, 20, 24, 44, 64, 72, 192, 384, 768, 1152])
def test_hadamard_matrices_have_entries_of_1_and_orthogonal_rows(size: int) -> None:
    matrix = hadamard_matrix(size)
    assert matrix is not None
    assert matrix.shape == (size, size)
    assert np.array_equal(np.abs(matrix), np.ones((size, size)))
    assert np.array_equal(matrix @ matrix.T, size * np.eye(size))


@pytest.mark.parametrize("size", [3, 5, 6, 10, 52, 97])
def test_other_sizes_have_no_matrix(size: int) -> None:
    assert hadamard_matrix(size) is None


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 40),
    rank=st.integers(0, 40),
    log_scale=st.floats(-6, 6),
    spread=st.floats(0, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_rotation_is_orthogonal_and_makes_the_variances_equal(
    size: int, rank: int, log_scale: float, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scales = 10 ** (log_scale + spread * rng.uniform(-0.5, 0.5, size))
    samples = rng.standard_normal((min(rank, size), size)) * scales
    covariance = samples.T @ samples / max(1, len(samples))
    rotation = equal_variance_rotation(covariance)
    assert rotation.shape == (size, size)
    assert np.allclose(rotation @ rotation.T, np.eye(size), rtol=0, atol=1e-10)
    mean = covariance.trace() / size
    variances = (rotation @ covariance @ rotation.T).diagonal()
    assert np.allclose(variances, mean, rtol=1e-7, atol=0)


@pytest.mark.parametrize("size", [8, 7])
def test_the_sign_of_an_eigenvector_does_not_change_the_rotation(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    covariance = np.cov(np.random.default_rng(0).standard_normal((size, 50)))
    once = equal_variance_rotation(covariance)
    eigh = np.linalg.eigh
    signs = np.where(np.arange(size) % 2, -1.0, 1.0)
    monkeypatch.setattr(np.linalg, "eigh", lambda m: (eigh(m)[0], eigh(m)[1] * signs))
    assert np.array_equal(equal_variance_rotation(covariance), once)


def test_a_constant_distribution_has_a_rotation_too() -> None:
    for size in (4, 5):
        rotation = equal_variance_rotation(np.zeros((size, size)))
        assert np.allclose(rotation @ rotation.T, np.eye(size))
