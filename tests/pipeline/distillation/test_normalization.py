"""Normalized features have the variances that they should have, and can be undone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from distinit.pipeline.distillation.normalization import (
    COLLAPSED,
    Normalization,
    phi_s,
    standardization,
)
from distinit.pipeline.distillation.normalization_file import (
    read_normalizations,
    recorded_normalizations,
    write_normalizations,
)
from distinit.pipeline.students.io import NORMALIZATION_NAME
from distinit.schemas.errors import RunMismatchError


def features(seed: int, channels: int, scale: float = 1.0, rows: int = 400) -> np.ndarray:
    """Correlated channels of different variances, with means unlike 0: fp32 [rows, channels]."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((channels, channels)) * rng.uniform(0.1, 3, channels)
    values = rng.standard_normal((rows, channels)) @ mixing + 5 * rng.standard_normal(channels)
    return (scale * values).astype(np.float32)


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance, fp64."""
    exact = values.astype(np.float64)
    return exact.mean(axis=0), np.atleast_2d(np.cov(exact.T, bias=True))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31), channels=st.integers(1, 24), scale=st.sampled_from([0.01, 1, 100])
)
def test_phi_s_gives_all_channels_variance_1_and_keeps_angles(
    seed: int, channels: int, scale: float
) -> None:
    values = features(seed, channels, scale)
    mean, covariance = moments(values)
    found = phi_s(mean, covariance)
    normalized = found.apply(torch.from_numpy(values))
    assert normalized.shape == values.shape
    assert np.allclose(normalized.mean(dim=0), 0, atol=1e-3)
    assert np.allclose(normalized.var(dim=0, correction=0), 1, atol=2e-3)
    assert len(set(found.scale_C.tolist())) == 1
    centred = values - mean
    lengths = np.linalg.norm(centred, axis=1) * found.scale_C[0].item()
    assert np.allclose(normalized.norm(dim=1), lengths, rtol=1e-3, atol=1e-3)
    undone = found.undo(normalized)
    assert np.allclose(undone, values, rtol=1e-4, atol=1e-4 * np.abs(values).max())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), channels=st.integers(1, 24))
def test_standardized_channels_have_mean_0_and_variance_1(seed: int, channels: int) -> None:
    values = features(seed, channels)
    mean, covariance = moments(values)
    found = standardization(mean, np.sqrt(covariance.diagonal()))
    normalized = found.apply(torch.from_numpy(values))
    assert np.allclose(normalized.mean(dim=0), 0, atol=1e-3)
    assert np.allclose(normalized.var(dim=0, correction=0), 1, atol=2e-3)
    assert np.allclose(found.undo(normalized), values, rtol=1e-4, atol=1e-3)


def test_each_cell_of_a_grid_is_a_vector() -> None:
    values = features(3, 6)
    found = phi_s(*moments(values))
    cells = torch.from_numpy(values[:8]).reshape(2, 24)
    expected = found.apply(torch.from_numpy(values[:8])).reshape(2, 24)
    assert torch.equal(found.apply(cells), expected)
    assert np.allclose(found.undo(expected), cells, atol=1e-3)


def test_collapsed_channels_are_not_scaled_up() -> None:
    std = np.array([2.0, 4.0, 0.0, 1e-6, 3.0])
    found = standardization(np.zeros(5), std)
    positive_median = np.median([2.0, 4.0, 1e-6, 3.0])
    assert std[3] < COLLAPSED * positive_median
    expected = [1 / 2, 1 / 4, 1 / positive_median, 1 / positive_median, 1 / 3]
    assert found.scale_C.tolist() == pytest.approx(expected)
    assert standardization(np.ones(2), np.zeros(2)).scale_C.tolist() == [1, 1]


def test_phi_s_spreads_few_directions_over_all_channels() -> None:
    direction = np.array([3.0, 0, 4.0, 0, 0, 0])
    values = np.outer(np.linspace(-1, 1, 101), direction).astype(np.float32)
    found = phi_s(*moments(values))
    normalized = found.apply(torch.from_numpy(values))
    assert torch.isfinite(normalized).all()
    assert normalized.var(dim=0, correction=0).tolist() == pytest.approx([1] * 6, abs=1e-4)
    constant = phi_s(np.full(6, 2.0), np.zeros((6, 6)))
    assert constant.scale_C.tolist() == [1] * 6
    assert constant.apply(torch.full((1, 6), 2.0)).tolist() == [[0] * 6]


def test_normalizations_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    values = features(0, 4)
    mean, covariance = moments(values)
    written = {
        "a.b@1": phi_s(mean, covariance),
        "c": standardization(mean, np.sqrt(covariance.diagonal())),
    }
    write_normalizations(tmp_path, written)
    assert recorded_normalizations(tmp_path) == {}, "the folder is not that of a begun run"
    read = read_normalizations(tmp_path)
    assert read.keys() == written.keys()
    for name, normalization in written.items():
        assert read[name].digest == normalization.digest
        assert (read[name].rotation_CC is None) == (normalization.rotation_CC is None)
    assert read["a.b@1"].digest != read["c"].digest


def test_nothing_is_written_without_normalized_heads(tmp_path: Path) -> None:
    write_normalizations(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


GOOD = {"a/mean_C": torch.zeros(3), "a/scale_C": torch.ones(3)}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a/mean_C": torch.zeros(3)}, "has the tensors mean_C"),
        (GOOD | {"a/other": torch.zeros(3)}, "has the tensors mean_C, other, scale_C"),
        (GOOD | {"a/scale_C": torch.ones(2)}, "scale_C has shape"),
        (GOOD | {"a/rotation_CC": torch.ones(3, 2)}, "rotation_CC has shape"),
        (GOOD | {"a/scale_C": torch.tensor([1.0, 0, 1])}, "not above 0"),
        (GOOD | {"a/mean_C": torch.tensor([1.0, torch.nan, 1])}, "not finite"),
        ({"a/mean_C": torch.zeros(3).int(), "a/scale_C": torch.ones(3).int()}, "floating-point"),
    ],
)
def test_files_with_other_tensors_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    save_file(tensors, tmp_path / NORMALIZATION_NAME)
    with pytest.raises(RunMismatchError, match=message):
        read_normalizations(tmp_path)


def test_a_missing_or_cut_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunMismatchError, match="cannot be used"):
        read_normalizations(tmp_path)
    write_normalizations(tmp_path, {"a": Normalization(torch.zeros(3), torch.ones(3))})
    path = tmp_path / NORMALIZATION_NAME
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RunMismatchError, match="cannot be used"):
        read_normalizations(tmp_path)


def test_the_documented_lines_undo_a_normalization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "distillation.md").read_text()
    code = page.partition("**Undoing it.**")[2].partition("```python\n")[2].partition("```")[0]
    values = features(4, 5)
    found = phi_s(*moments(values))
    write_normalizations(tmp_path, {"dinov2": found})
    monkeypatch.chdir(tmp_path)
    names = {"output_BC": found.apply(torch.from_numpy(values))}
    exec(code, names)
    assert torch.allclose(names["features_BC"], torch.from_numpy(values), rtol=1e-4, atol=1e-3)
