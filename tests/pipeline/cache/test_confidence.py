"""Confidence against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distinit.pipeline.cache.confidence import (
    Fidelity,
    confidence_of,
    fidelity_of,
    fidelity_report,
    fidelity_sums,
    filter_flips,
)

logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 9)),
    elements=st.floats(-300, 300, width=32),
)


def test_closed_forms() -> None:
    p_NC = np.array([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]])
    found = confidence_of(np.log(p_NC).astype(np.float32) + np.float32(2))
    assert found.entropy_nats == pytest.approx([1.5 * np.log(2), np.log(3)], rel=1e-6)
    assert found.top1_class.tolist() == [0, 0]
    assert found.top1_probability == pytest.approx([0.5, 1 / 3], rel=1e-6)
    assert found.margin == pytest.approx([0.25, 0.0], abs=1e-6)
    assert found.log_z == pytest.approx([2.0, 2.0], rel=1e-6)


def test_a_certain_teacher_has_no_entropy() -> None:
    found = confidence_of(np.array([[1000.0, 0.0], [0.0, -1000.0]], np.float32))
    assert found.entropy_nats.tolist() == [0.0, 0.0]
    assert found.margin.tolist() == [1.0, 1.0]


@given(logits)
def test_bounds(values_NC: np.ndarray) -> None:
    found = confidence_of(values_NC)
    classes = values_NC.shape[1]
    assert (found.entropy_nats >= 0).all()
    assert (found.entropy_nats <= np.log(classes) + 1e-5).all()
    assert (found.top1_probability >= np.float32(1 / classes) * (1 - 1e-6)).all()
    assert (found.margin <= found.top1_probability).all()
    assert found.top1_class.tolist() == values_NC.argmax(axis=1).tolist()
    assert (found.log_z >= values_NC.max(axis=1)).all()
    assert all(
        column.dtype == kind
        for column, kind in (
            (found.entropy_nats, np.float32),
            (found.top1_class, np.int32),
            (found.log_z, np.float32),
        )
    )


def test_fidelity_of_a_known_pair() -> None:
    p, q = np.array([[0.75, 0.25]]), np.array([[0.25, 0.75]])
    found = fidelity_of(np.log(p).astype(np.float32), np.log(q).astype(np.float32))
    assert found.kl_nats == pytest.approx([0.5 * np.log(3)], rel=1e-6)
    assert found.entropy_error_nats == pytest.approx([0.0], abs=1e-6)
    assert found.top1_agrees.tolist() == [False]


def test_report_merges_units() -> None:
    entropy_N = np.array([1.0, 9.0, 3.0])
    unit = Fidelity(
        np.array([1.0, 9.0, 3.0]), entropy_N, np.array([0.5, 9.0, 0.5]), np.array([True] * 3)
    )
    other = Fidelity(np.array([2.0]), np.array([1.0]), np.array([2.0]), np.array([False]))
    sums = [
        fidelity_sums(unit, entropy_N, np.array([0, 2])),
        fidelity_sums(other, np.array([1.25]), np.array([0])),  # a damaged column
    ]
    report = fidelity_report(sums)
    assert report is not None
    assert (report.frames, report.mean_kl_nats, report.max_kl_nats) == (3, 2.0, 3.0)
    assert report.mean_entropy_error_nats == 1.0
    assert report.top1_agreement == pytest.approx(2 / 3)
    assert report.filter_flips == pytest.approx(1 / 3)
    assert fidelity_report([fidelity_sums(unit, entropy_N, np.array([], int))]) is None


def test_flips_are_counted_at_the_quartiles() -> None:
    true_N = np.arange(9.0)  # quartiles 2, 4 and 6
    stored_N = true_N.copy()
    assert not filter_flips(true_N, stored_N).any()
    stored_N[[2, 3, 7, 8]] = 2.5, 3.9, 6.0, 6.5  # 2 leaves the first quarter, 7 joins the third
    assert np.flatnonzero(filter_flips(true_N, stored_N)).tolist() == [2, 7]


@given(logits)
def test_the_stored_entropy_flips_no_frame(values_NC: np.ndarray) -> None:
    exact_N = fidelity_of(values_NC, values_NC).entropy_nats
    assert not filter_flips(exact_N, confidence_of(values_NC).entropy_nats).any()
