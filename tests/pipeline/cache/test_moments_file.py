"""Files of moments: read as they were written, refused if a byte differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from distinit.pipeline.cache.feature_moments import FeatureMoments, moments_of
from distinit.pipeline.cache.moments_file import (
    MomentsError,
    StoredMoments,
    content_of_units,
    max_moments_bytes,
    read_moments,
    write_moments,
)

CONTENT = content_of_units(["a" * 64, "b" * 64])


def written(path: Path, channels: int = 3) -> StoredMoments:
    vectors_NC = np.random.default_rng(7).standard_normal((9, channels))
    stored = StoredMoments(moments_of(vectors_NC), 2, CONTENT)
    write_moments(stored, path)
    return stored


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_a_file_is_read_as_it_was_written(tmp_path: Path, channels: int) -> None:
    stored = written(tmp_path / "m.safetensors", channels)
    found = read_moments(tmp_path / "m.safetensors", channels)
    assert (found.units, found.content, found.moments.vectors) == (2, CONTENT, 9)
    assert found.moments.mean_C.tolist() == stored.moments.mean_C.tolist()
    assert found.moments.scatter.tolist() == stored.moments.scatter.tolist()
    assert (tmp_path / "m.safetensors").stat().st_size <= max_moments_bytes(channels)


def test_more_than_4096_channels_have_a_diagonal(tmp_path: Path) -> None:
    stored = StoredMoments(FeatureMoments(2, np.zeros(4_097), np.arange(4_097.0)), 1, CONTENT)
    write_moments(stored, tmp_path / "m")
    assert read_moments(tmp_path / "m", 4_097).moments.scatter.tolist() == list(range(4_097))
    assert (tmp_path / "m").stat().st_size < 70_000


@given(data=st.data())
def test_a_changed_byte_of_a_tensor_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("changed") / "m"
    written(path)
    raw = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    at = data.draw(st.integers(start, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(raw))
    with pytest.raises(MomentsError, match="its sha256 is not that of its values"):
        read_moments(path, 3)


@given(raw=st.binary(max_size=300))
def test_other_files_are_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("other") / "m"
    path.write_bytes(raw)
    with pytest.raises(MomentsError):
        read_moments(path, 3)


def test_other_tensors_and_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    written(path)
    with pytest.raises(MomentsError, match=r"its tensors are not .* of 4 channels"):
        read_moments(path, 4)
    path.write_bytes(save(load(path.read_bytes()) | {"more": np.zeros(1)}))
    with pytest.raises(MomentsError, match="its tensors are not"):
        read_moments(path, 3)
    path.write_bytes(bytes(max_moments_bytes(3) + 1))
    with pytest.raises(OSError, match="more than"):
        read_moments(path, 3)


@pytest.mark.parametrize(
    "moments",
    [
        FeatureMoments(-1, np.zeros(2), np.zeros((2, 2))),
        FeatureMoments(1, np.array([0.0, np.nan]), np.zeros((2, 2))),
        FeatureMoments(1, np.zeros(2), np.full((2, 2), np.inf)),
        FeatureMoments(1, np.zeros(2), np.diag([1.0, -1.0])),
    ],
)
def test_impossible_moments_are_refused(tmp_path: Path, moments: FeatureMoments) -> None:
    write_moments(StoredMoments(moments, 1, CONTENT), tmp_path / "m")
    with pytest.raises(MomentsError, match="negative counts or variances, or values"):
        read_moments(tmp_path / "m", 2)
