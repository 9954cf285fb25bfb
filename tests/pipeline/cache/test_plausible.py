"""The confidence of rows against their stored targets, over several blocks of rows."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.caches import make_teacher

from distinit.pipeline.cache.confidence import confidence_of
from distinit.pipeline.cache.encoding import encode
from distinit.pipeline.cache.plausible import first_implausible

ROWS, CLASSES = 300, 1000  # three blocks of 131 rows
ENCODINGS = ("float16", "int8", "topk:8")
LOGITS_NC = (4 * np.random.default_rng(3).standard_normal((ROWS, CLASSES))).astype(np.float32)


def columns() -> dict[str, np.ndarray]:
    """The confidence table of LOGITS_NC."""
    found = confidence_of(LOGITS_NC)
    names = ("entropy_nats", "top1_class", "top1_probability", "margin", "log_z")
    return {name: getattr(found, name).copy() for name in names}


def first(encoding: str, table: dict[str, np.ndarray], unanswered: int | None = None) -> int | None:
    """What ``first_implausible`` finds among every second row of a unit."""
    arrays = {}
    for name, values in encode(LOGITS_NC, encoding).arrays.items():
        arrays[name] = np.zeros((2 * ROWS, values.shape[1]), values.dtype)
        arrays[name][::2] = values
    unanswered_N = np.arange(ROWS) == (-1 if unanswered is None else unanswered)
    record = make_teacher("t", classes=CLASSES, encoding=encoding)
    return first_implausible(record, arrays, np.arange(0, 2 * ROWS, 2), table, unanswered_N)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_true_confidence_is_plausible(encoding: str) -> None:
    assert first(encoding, columns()) is None


@pytest.mark.parametrize("encoding", ENCODINGS[:2])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("entropy_nats", 2.0),
        ("top1_class", 1),
        ("top1_class", -CLASSES),
        ("top1_class", CLASSES),
        ("top1_probability", 0.9),
        ("margin", 0.9),
        ("log_z", 0.5),
        ("log_z", np.nan),
    ],
)
def test_a_changed_column_is_found_in_its_row(encoding: str, name: str, change: float) -> None:
    table = columns()
    for row in (280, 250):
        table[name][row] += np.asarray(change).astype(table[name].dtype)
    assert first(encoding, table) == 250
    assert first(encoding, table, unanswered=250) == 280


@pytest.mark.parametrize(("name", "change"), [("top1_class", 1), ("log_z", 0.5)])
def test_a_changed_column_of_top_k_is_found(name: str, change: float) -> None:
    table = columns()
    table[name][250] += np.asarray(change).astype(table[name].dtype)
    assert first("topk:8", table) == 250


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_rows_are_plausible(encoding: str) -> None:
    arrays = encode(LOGITS_NC[:4], encoding).arrays
    record = make_teacher("t", classes=CLASSES, encoding=encoding)
    none_N = np.zeros(0, np.int64)
    table = {name: values[:0] for name, values in columns().items()}
    assert first_implausible(record, arrays, none_N, table, none_N.astype(bool)) is None
