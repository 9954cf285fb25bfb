"""Encoded targets do not depend on how the rows are divided into batches or threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.caches import make_teacher

from distinit.pipeline.cache.target_rows import TargetRows, target_rows

ROWS, CLASSES = 40, 300


def joined(parts: list[TargetRows]) -> dict[str, np.ndarray]:
    """All arrays of consecutive parts by name."""
    names = [*parts[0].arrays, *parts[0].confidence]
    found = {n: np.concatenate([{**p.arrays, **p.confidence}[n] for p in parts]) for n in names}
    lost = [part.fidelity for part in parts if part.fidelity is not None]
    if lost:
        found["kl"] = np.concatenate([one.kl_nats for one in lost])
        found["entropy error"] = np.concatenate([one.entropy_error_nats for one in lost])
    return found


@pytest.mark.parametrize(
    ("encoding", "target"),
    [("float16", "logits"), ("int8", "logits"), ("topk:5", "logits"), ("int8", "features")],
)
def test_rows_encoded_in_parts_by_several_threads_are_those_encoded_at_once(
    encoding: str, target: str
) -> None:
    record = make_teacher("t", classes=CLASSES, encoding=encoding, target=target)
    logits_NC = np.random.default_rng(0).normal(0, 9, (ROWS, CLASSES)).astype(np.float32)
    whole = target_rows(logits_NC, record)
    with ThreadPoolExecutor(4) as pool:
        cuts = [slice(at, at + 7) for at in range(0, ROWS, 7)]
        parts = list(pool.map(lambda cut: target_rows(logits_NC[cut], record), cuts))
    expected = joined([whole])
    assert ("kl" in expected) == (target == "logits")
    for name, values in joined(parts).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
    for name, values in joined([whole[cut] for cut in cuts]).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
