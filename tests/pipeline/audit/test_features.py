"""The audit of features: planted ranks, norms and dead channels are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import caches
from helpers.caches import CORPUS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distinit.pipeline.audit.feature_warnings import feature_warnings
from distinit.pipeline.audit.features import NormScan, audit_features, spectrum_of
from distinit.pipeline.cache import TargetCache
from distinit.pipeline.progress import NullProgress
from distinit.schemas.audit import TeacherAudit
from distinit.schemas.audit_features import FeatureAudit
from distinit.schemas.teacher import TeacherRecord

Of = Callable[[np.ndarray], np.ndarray]


def audited(root: Path, record: TeacherRecord, values_of: Of) -> FeatureAudit:
    """The audit of features that are a function of the frame number."""
    caches.run_all(
        root, CORPUS, [record], outputs=lambda _, __, index_N: values_of(index_N).astype(np.float32)
    )
    found = audit_features(TargetCache.open(root), record.id, NullProgress())
    assert found is not None
    return found


def rank_three(index_N: np.ndarray) -> np.ndarray:
    """Frame i is one of three orthogonal vectors of length 2, or its opposite."""
    values_NC = np.zeros((len(index_N), 8))
    values_NC[np.arange(len(index_N)), index_N % 3] = np.where(index_N % 2, 2.0, -2.0)
    return values_NC


def test_planted_features_of_rank_three(tmp_path: Path) -> None:
    corpus = caches.Corpus(frames={"a": 60})
    record = caches.make_teacher("f", classes=8, target="features")
    caches.run_all(
        tmp_path / "c", corpus, [record], outputs=lambda _, __, i: rank_three(i).astype(np.float32)
    )
    found = audit_features(TargetCache.open(tmp_path / "c"), "f", NullProgress())
    assert found is not None
    assert found.effective_rank == pytest.approx(3.0, abs=1e-9)
    assert found.participation_ratio == pytest.approx(3.0, abs=1e-9)
    assert found.spectrum == pytest.approx((1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0, 0), abs=1e-12)
    assert (found.vectors, found.channels) == (60, 8)
    assert (found.norm_min, found.norm_median, found.norm_max) == (2.0, 2.0, 2.0)
    assert sum(found.norms.vectors) == 60


def with_dead_channel(index_N: np.ndarray) -> np.ndarray:
    values_NC = np.random.default_rng(3).standard_normal((200, 6))[index_N]
    values_NC[:, 4] = 7.5
    return values_NC


def test_a_planted_dead_dimension(tmp_path: Path) -> None:
    record = caches.make_teacher("f", classes=6, target="features")
    found = audited(tmp_path / "c", record, with_dead_channel)
    assert found.collapsed_dimensions == 1
    (warning,) = feature_warnings([TeacherAudit(record=record, confidence=None, features=found)])
    assert (warning.kind, warning.teacher) == ("collapsed dimensions", "f")
    assert warning.text == "1 channel of 6 nearly constant"
    assert "standard deviation below 0.001 of the median over the channels" in warning.rule


def test_each_cell_of_a_grid_has_a_norm(tmp_path: Path) -> None:
    record = caches.make_teacher("f", classes=8, target="features", pool="grid:2")
    found = audited(
        tmp_path / "c",
        record,
        lambda i: np.tile([3.0, 4.0, 0.0, 0.0, 6.0, 8.0, 0.0, 1.0], (len(i), 1)),
    )
    assert (found.vectors, found.channels) == (4 * 279, 2)
    assert (found.norm_min, found.norm_max) == (0.0, 10.0)
    (warning,) = feature_warnings([TeacherAudit(record=record, confidence=None, features=found)])
    assert warning.kind == "features of zero"


def test_without_statistics_there_are_norms_and_a_warning(tmp_path: Path) -> None:
    record = caches.make_teacher("f", classes=6, target="features")
    audited(tmp_path / "c", record, with_dead_channel)
    (tmp_path / "c/teachers/f/statistics.safetensors").unlink()
    found = audit_features(TargetCache.open(tmp_path / "c"), "f", NullProgress())
    assert found is not None
    assert (found.effective_rank, found.collapsed_dimensions) == (None, None)
    (warning,) = feature_warnings([TeacherAudit(record=record, confidence=None, features=found)])
    assert warning.kind == "no statistics"


def test_features_that_never_vary_have_no_rank(tmp_path: Path) -> None:
    record = caches.make_teacher("f", classes=3, target="features")
    found = audited(tmp_path / "c", record, lambda i: np.full((len(i), 3), 0.1))
    assert (found.effective_rank, found.collapsed_dimensions) == (None, 3)
    assert spectrum_of(np.zeros((2, 2))).tolist() == [0.0, 0.0]


@given(
    norms=arrays(np.float32, st.integers(1, 60), elements=st.floats(0, 2.0**100, width=32)),
)
def test_the_median_is_within_its_bin(norms: np.ndarray) -> None:
    scan = NormScan()
    for part in np.array_split(norms.astype(np.float64), 3):
        scan.add(part[:, None])
    assert scan.vectors == len(norms)
    expected = np.sort(norms)[(len(norms) - 1) // 2].astype(np.float64)
    assert scan.median() == pytest.approx(expected, rel=5e-4, abs=1e-38)
    assert (scan.smallest, scan.largest) == (norms.min(), norms.max())
    assert sum(scan.histogram().vectors) == len(norms)
