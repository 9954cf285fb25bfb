"""What encodings and arithmetic change in features: errors, their sums, and the records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.caches import CORPUS, make_teacher, resign, run_all
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distinit.pipeline.cache.encoding import decode, encode
from distinit.pipeline.cache.feature_fidelity import (
    FeatureFidelity,
    feature_fidelity_of,
    feature_fidelity_report,
    feature_fidelity_sums,
    feature_precision_loss_sums,
)
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.schemas.cache_format import CACHE_FORMAT_MINOR
from distinit.schemas.feature_sums import FeatureFidelitySums
from distinit.schemas.manifest import UnitCommit


def test_errors_of_known_rows() -> None:
    features_NC = np.array([[3, 4], [1, 0], [1, 0], [0, 0], [0, 0]], np.float32)
    stored_NC = np.array([[3, 4], [0, 1], [2, 0], [0, 0], [1, 0]], np.float32)
    found = feature_fidelity_of(features_NC, stored_NC)
    np.testing.assert_allclose(found.cosine_error, [0, 1, 0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(found.relative_error, [0, 2**0.5, 1, 0, 1])


def test_small_angles_are_not_lost_to_cancellation() -> None:
    # 1 - cos of an angle of 1e-9 is 5e-19, below the spacing of fp64 at 1.
    found = feature_fidelity_of(np.array([[1.0, 0.0]]), np.array([[1.0, 1e-9]]))
    np.testing.assert_allclose(found.cosine_error, [5e-19], rtol=1e-6)


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 9)),
        elements=st.floats(-1000, 1000, width=32),
    ),
    st.sampled_from(["float16", "int8"]),
)
def test_stored_rows_have_finite_errors(features_NC: np.ndarray, encoding: str) -> None:
    stored = encode(features_NC, encoding, "features").arrays
    stored_NC = decode(stored, encoding, features_NC.shape[1])
    found = feature_fidelity_of(features_NC, stored_NC)
    assert ((found.cosine_error >= 0) & (found.cosine_error <= 2 + 1e-9)).all()
    assert (np.isfinite(found.relative_error) & (found.relative_error >= 0)).all()


def test_rows_without_an_output_do_not_count() -> None:
    fidelity = FeatureFidelity.zeros(5)
    fidelity.put(slice(0, 3), FeatureFidelity(np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])))
    fidelity.put_missing(slice(3, 4))
    sums = feature_fidelity_sums(fidelity, np.array([0, 2, 3]))
    assert sums.frames == 2
    assert sums.cosine_error_sum == pytest.approx(0.4)
    assert (sums.cosine_error_max, sums.relative_error_max) == (0.3, 0.7)
    assert feature_fidelity_sums(fidelity, np.array([3])).frames == 0


def test_units_are_merged() -> None:
    parts = [
        FeatureFidelitySums(
            frames=frames,
            cosine_error_sum=0.01 * frames,
            cosine_error_max=0.02 * frames,
            relative_error_sum=0.1 * frames,
            relative_error_max=0.2,
            measured_against=against,
        )
        for frames, against in ((1, None), (3, "float16"))
    ]
    report = feature_fidelity_report(parts)
    assert report is not None
    assert (report.frames, report.measured_against) == (4, "float16, fp32")
    assert (report.mean_cosine_error, report.max_cosine_error) == pytest.approx((0.01, 0.06))
    assert (report.mean_relative_error, report.max_relative_error) == pytest.approx((0.1, 0.2))
    assert feature_fidelity_report([]) is None


def test_the_arithmetic_is_compared_without_an_encoding() -> None:
    exact_NC = np.array([[1, 1], [3, 4]], np.float32)
    sums = feature_precision_loss_sums(exact_NC, exact_NC * np.float32(1.01))
    assert sums.frames == 2
    assert sums.relative_error_sum == pytest.approx(0.02, rel=1e-4)
    assert sums.cosine_error_max < 1e-14


@pytest.fixture(scope="module", params=["float16", "int8"])
def cache_root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("features") / "cache"
    teachers = [
        make_teacher("body", classes=9, target="features", encoding=request.param),
        make_teacher("alpha"),
    ]
    run_all(root, CORPUS, teachers)
    return root


def test_a_cache_states_the_errors_of_its_features(cache_root: Path) -> None:
    cache = TargetCache.open(cache_root)
    record, logits = cache.teachers["body"], cache.teachers["alpha"]
    report = record.feature_fidelity
    assert report is not None
    assert (record.fidelity, report.frames) == (None, cache.manifest.row_space.rows)
    assert record.losses == (report, None)
    low, high = {"float16": (1e-9, 1e-6), "int8": (1e-7, 1e-4)}[record.encoding]
    assert low < report.mean_cosine_error <= report.max_cosine_error < high
    # cos = 1 - e²/2 for a small relative error e that is at right angles to the features.
    assert report.mean_cosine_error < report.max_relative_error**2
    assert record.format_minor == CACHE_FORMAT_MINOR
    assert (logits.feature_fidelity, logits.format_minor) == (None, 0)
    assert verify_cache(cache_root).problems == ()


def test_earlier_versions_can_check_the_digest_of_a_commit(cache_root: Path) -> None:
    path = CacheLayout(cache_root).commit("body", 0)
    commit = UnitCommit.model_validate_json(path.read_text())
    assert commit.feature_fidelity is not None
    assert commit.format_minor == CACHE_FORMAT_MINOR
    later = {"feature_fidelity": None, "feature_precision_loss": None, "format_minor": 0}
    assert commit.model_copy(update=later).seal() == commit.record_sha256


def test_verification_compares_the_report_with_the_commits(cache_root: Path) -> None:
    path = cache_root / "teachers/body/teacher.json"
    before = path.read_text()
    record = json.loads(before)
    record["feature_fidelity"]["max_cosine_error"] /= 2
    try:
        path.write_text(json.dumps(record))
        resign(cache_root)
        problems = verify_cache(cache_root).problems
    finally:
        path.write_text(before)
        resign(cache_root)
    expected = "teachers/body/teacher.json: its feature_fidelity is not that of the commits"
    assert expected in problems
