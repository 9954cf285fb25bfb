"""Encodings: exact where they promise it, bounded where they round."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import caches
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distinit.pipeline.cache.confidence import confidence_of, fidelity_of, log_softmax
from distinit.pipeline.cache.encoding import (
    array_specs,
    check_encoding,
    decode,
    encode,
    first_unstorable,
)
from distinit.schemas.errors import CacheCorruptError, ConfigError, TeacherError

logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.integers(2, 20)),
    elements=st.floats(-1000, 1000, width=32),
)


@given(logits)
def test_float16_is_the_nearest_half(values_NC: np.ndarray) -> None:
    encoded = encode(values_NC, "float16")
    assert encoded.arrays["logits"].dtype == np.float16
    assert np.array_equal(
        decode(encoded.arrays, "float16", values_NC.shape[1]),
        values_NC.astype(np.float16).astype(np.float32),
    )


@given(logits)
@example(np.array([[0, 4.784e-42]], np.float32))
@example(np.array([[1.1754944e-38, 0]], np.float32))
def test_int8_is_within_half_a_step_and_keeps_the_extremes(values_NC: np.ndarray) -> None:
    arrays = encode(values_NC, "int8", target="features").arrays
    assert (arrays["logits"].dtype, arrays["logits_affine"].dtype) == (np.int8, np.float32)
    back_NC = decode(arrays, "int8", values_NC.shape[1])
    step_N1 = np.ptp(values_NC.astype(np.float64), axis=1, keepdims=True) / 255
    smallest = 256 * np.finfo(np.float32).smallest_subnormal  # a step of float32, 256 times
    rounding_N1 = 1e-6 * np.abs(values_NC).max(axis=1, keepdims=True) + smallest
    error_NC = np.abs(back_NC - values_NC.astype(np.float64))
    assert (error_NC <= step_N1 / 2 * (1 + 1e-5) + rounding_N1).all()
    for extreme in (np.argmin, np.argmax):
        place_N1 = extreme(values_NC, axis=1)[:, None]
        assert (np.take_along_axis(error_NC, place_N1, 1) <= 3 * rounding_N1).all()


@given(logits)
def test_int8_of_logits_gives_up_a_tail_only_where_that_lowers_the_kl(
    values_NC: np.ndarray,
) -> None:
    classes = values_NC.shape[1]
    plain_NC = decode(encode(values_NC, "int8", target="features").arrays, "int8", classes)
    arrays = encode(values_NC, "int8").arrays
    back_NC = decode(arrays, "int8", classes)
    kl_N, plain_kl_N = (fidelity_of(values_NC, x).kl_nats for x in (back_NC, plain_NC))
    assert (kl_N <= plain_kl_N).all()
    narrow_N = np.ptp(values_NC, axis=1) <= 12
    assert np.array_equal(back_NC[narrow_N], plain_NC[narrow_N])
    step_N1 = arrays["logits_affine"][:, :1].astype(np.float64)
    rounding_N1 = 2e-6 * np.abs(values_NC).max(axis=1, keepdims=True)
    raised_NC = arrays["logits"] == -128
    error_NC = back_NC - values_NC.astype(np.float64)
    assert (error_NC >= -step_N1 / 2 - rounding_N1).all()  # raised, never lowered
    assert (np.abs(error_NC) <= step_N1 / 2 + rounding_N1)[~raised_NC].all()


@pytest.mark.parametrize("range_nats", [9, 13, 17, 21, 26])
def test_int8_keeps_its_bar_of_kl(range_nats: float) -> None:
    """1000 classes in a bell of the given range: from the widest to the narrowest seen."""
    rng = np.random.default_rng(0)
    values_NC = rng.standard_normal((200, 1000)).astype(np.float32)
    values_NC *= range_nats / np.ptp(values_NC, axis=1, keepdims=True)
    back_NC = decode(encode(values_NC, "int8").arrays, "int8", 1000)
    assert fidelity_of(values_NC, back_NC).kl_nats.max() <= 2e-4


def test_int8_of_a_constant_row_is_exact() -> None:
    values_NC = np.full((2, 4), 3.25, np.float32)
    arrays = encode(values_NC, "int8").arrays
    assert np.array_equal(decode(arrays, "int8", 4), values_NC)


def test_topk_keeps_ids_exactly_and_probabilities_closely() -> None:
    values_NC = np.random.default_rng(0).standard_normal((3, 5000)).astype(np.float32)
    values_NC[:, 4097] += 20  # an id that fp16 cannot hold
    arrays = encode(values_NC, "topk:4").arrays
    assert arrays["logits_ids"].dtype == np.uint16
    assert arrays["logits_ids"][:, 0].tolist() == [4097] * 3
    assert np.array_equal(arrays["logits_ids"], np.argsort(-values_NC, axis=1)[:, :4])
    log_z_N = confidence_of(values_NC).log_z
    back_NC = decode(arrays, "topk:4", 5000, log_z_N)
    logp_NC, _ = log_softmax(values_NC)
    logq_NC, _ = log_softmax(back_NC)
    ids = arrays["logits_ids"].astype(np.int64)
    kept = np.take_along_axis(logp_NC, ids, 1) - np.take_along_axis(logq_NC, ids, 1)
    assert np.abs(kept).max() < 0.01
    rest_N = np.array([np.unique(np.delete(row, i)).size for row, i in zip(back_NC, ids)])  # noqa: B905
    assert rest_N.tolist() == [1, 1, 1]


def test_topk_of_many_classes_uses_wider_ids() -> None:
    values_NC = np.zeros((1, 70_000), np.float32)
    values_NC[0, 69_999] = 5
    arrays = encode(values_NC, "topk:2").arrays
    assert arrays["logits_ids"].dtype == np.int32
    assert arrays["logits_ids"].tolist() == [[69_999, 0]]


def test_equal_logits_rank_by_class_id() -> None:
    arrays = encode(np.zeros((1, 9), np.float32), "topk:3").arrays
    assert arrays["logits_ids"].tolist() == [[0, 1, 2]]


def test_a_class_id_out_of_range_is_refused() -> None:
    arrays = {
        "logits": np.zeros((1, 1), np.float16),
        "logits_ids": np.array([[7]], np.uint16),
    }
    with pytest.raises(CacheCorruptError, match="class id"):
        decode(arrays, "topk:1", 7, np.zeros(1, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", ["float16", "int8", "topk:1"])
def test_values_that_are_not_finite_are_refused(value: float, encoding: str) -> None:
    what = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(TeacherError, match=f"the output of a teacher contains {what}"):
        encode(np.array([[1.0, value]], np.float32), encoding)


@pytest.mark.parametrize(
    ("encoding", "row", "found"),
    [
        ("float16", [1.0, 2.0, 65_504.0], None),
        ("float16", [1.0, 2.0, -65_505.0], "a value too large for float16"),
        ("int8", [1.0, 70_000.0, -3e37], None),
        ("int8", [1.0, 2.0, 2e38], "a value too large for int8"),
        ("topk:2", [-70_000.0, 1.0, 2.0], None),
        ("topk:2", [-70_000.0, 1.0, -80_000.0], "a value too large for float16"),
        ("topk:2", [70_000.0, 1.0, 2.0], "a value too large for float16"),
        ("topk:2", [2.0, 1.0, np.nan], "NaN"),
        ("int8", [2.0, 1.0, np.inf], "infinity"),
    ],
)
def test_the_first_row_that_an_encoding_cannot_hold(
    encoding: str, row: list[float], found: str | None
) -> None:
    targets_NC = np.array([[0.0, 1.0, 2.0], row, row], np.float32)
    assert first_unstorable(targets_NC, encoding) == (None if found is None else (1, found))
    if found is None:
        encode(targets_NC, encoding)


def test_no_rows_are_storable() -> None:
    assert first_unstorable(np.zeros((0, 3), np.float32), "float16") is None


def test_values_too_large_for_float16_are_refused() -> None:
    with pytest.raises(TeacherError, match="int8"):
        encode(np.array([[1.0, 70_000.0]], np.float32), "float16")


def test_specs_name_the_arrays_that_encode_makes() -> None:
    values_NC = np.ones((2, 9), np.float32)
    for encoding in ("float16", "int8", "topk:3"):
        arrays = encode(values_NC, encoding).arrays
        specs = array_specs(encoding, 9)
        assert {s.name: (s.width, s.dtype) for s in specs} == {
            name: (values.shape[1], values.dtype) for name, values in arrays.items()
        }


def test_bytes_per_row_are_as_documented() -> None:
    per_row = {e: sum(s.row_bytes for s in array_specs(e, 1000)) for e in ("float16", "int8")}
    assert per_row == {"float16": 2000, "int8": 1008}


def test_topk_that_cannot_work_is_refused() -> None:
    features = caches.make_teacher("f", target="features").identity
    with pytest.raises(ConfigError, match="features"):
        check_encoding(features, "topk:2")
    with pytest.raises(ConfigError, match="every class"):
        check_encoding(caches.make_teacher("t", classes=7).identity, "topk:7")
    check_encoding(caches.make_teacher("t", classes=7).identity, "topk:6")
