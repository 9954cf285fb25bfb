"""Two teachers side by side: exact counts, disagreements, and permuted classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.caches import make_teacher

from distinit.pipeline.audit.pairs import PairScan
from distinit.pipeline.audit.units import ConfidenceRows
from distinit.pipeline.audit.warnings import pair_warnings

CLASSES = 7


def rows_of(entropy: list[float], top1: list[int], first_row: int = 0) -> ConfidenceRows:
    count = len(entropy)
    return ConfidenceRows(
        row_N=np.arange(first_row, first_row + count),
        video_N=np.arange(count) // 4,
        frame_index_N=np.arange(count) % 4,
        entropy_nats_N=np.array(entropy, np.float32),
        top1_class_N=np.array(top1, np.int32),
        top1_probability_N=np.full(count, 0.5, np.float32),
    )


def test_rows_that_both_have_are_compared() -> None:
    scan = PairScan(make_teacher("a"), make_teacher("b"), 2)
    a = rows_of([0.1, 0.2, 1.9, 1.8], [0, 1, 2, 3])
    b = rows_of([1.9, 0.2, 0.1, 1.8, 0.3], [0, 1, 2, 6, 5])
    scan.add(a, b)
    scan.add(rows_of([1.0], [0], 90), rows_of([1.0], [0], 91))
    found = scan.summary()
    assert (found.first, found.second, found.frames) == ("a", "b", 4)
    assert found.agreement == 3 / 4
    x, y = a.entropy_nats_N, b.entropy_nats_N[:4]
    assert found.correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
    assert sum(map(sum, found.joint_frames)) == 4
    assert found.mapped_agreement is None, "too few classes occur in several videos"
    (only_first,) = scan.only_first.lowest(3)
    (only_second,) = scan.only_second.lowest(3)
    assert (only_first.frame_index, only_second.frame_index) == (0, 2)
    assert only_second.entropy_nats == float(np.float32(0.1))


def test_permuted_classes_are_suspected() -> None:
    rng = np.random.default_rng(0)
    top1 = rng.integers(0, CLASSES, 400)
    entropy = rng.uniform(0, math.log(CLASSES), 400).tolist()
    shifted = (top1 + 3) % CLASSES
    noise = rng.integers(0, CLASSES, 400)
    for other, suspected in ((shifted, True), (top1, False), (noise, False), (0 * top1, False)):
        scan = PairScan(make_teacher("a"), make_teacher("b"), 100)
        scan.add(rows_of(entropy, top1.tolist()), rows_of(entropy, other.tolist()))
        warnings = list(pair_warnings([scan.summary()]))
        assert [w.kind for w in warnings] == ["permuted classes suspected"] * suspected


def test_other_label_spaces_have_no_agreement() -> None:
    scan = PairScan(make_teacher("a"), make_teacher("b", classes=5), 1)
    scan.add(rows_of([0.5], [0]), rows_of([1.5], [0]))
    found = scan.summary()
    assert (found.agreement, found.mapped_agreement, found.correlation) == (None, None, 0)
