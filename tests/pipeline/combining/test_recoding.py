"""Encoding stored rows again: the top class stays, values that do not fit are refused."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.caches import make_teacher
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distinit.pipeline.cache.plausible import first_implausible
from distinit.pipeline.cache.target_rows import TargetRows, target_rows
from distinit.pipeline.combining.recoding import recoded, recoded_record
from distinit.schemas.errors import CacheError

CLASSES = 7


@given(
    arrays(np.float32, (5, CLASSES), elements=st.floats(-60, 60, width=32)),
    st.sampled_from([("float16", "int8"), ("float16", "topk:2"), ("int8", "float16")]),
)
def test_verification_accepts_what_is_encoded_again(
    logits_NC: np.ndarray, encodings: tuple[str, str]
) -> None:
    before = make_teacher("t", encoding=encodings[0])
    after = recoded_record(before, encodings[1])
    rows = recoded(target_rows(logits_NC, before), before, after)
    used_N = np.arange(len(logits_NC))
    none_N = np.zeros(len(logits_NC), bool)
    assert first_implausible(after, rows.arrays, used_N, rows.confidence, none_N) is None


def test_the_best_class_in_fp32_stays_first_among_equal_ones() -> None:
    logits_NC = np.array([[1.0, 1.00001, 1.00002, 0.0, 0.0, 0.0, 0.0]], np.float32)
    before = make_teacher("t")
    rows = recoded(target_rows(logits_NC, before), before, recoded_record(before, "topk:2"))
    assert rows.arrays["logits_ids"].tolist() == [[2, 0]]
    assert rows.arrays["logits"].tolist() == [[1.0, 1.0]]


def test_a_value_that_does_not_fit_is_named() -> None:
    before = make_teacher("t", encoding="int8", target="features")
    values_NC = np.array([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 1e6]], np.float32)
    rows = target_rows(values_NC, before)
    assert isinstance(rows, TargetRows)
    with pytest.raises(CacheError, match="targets of teacher t cannot be stored as float16"):
        recoded(rows, before, recoded_record(before, "float16"))
