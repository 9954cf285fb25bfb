"""The streaming pass gives the statistics of all rows, however they are split into units."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinit.pipeline.audit.bins import EntropyBins
from distinit.pipeline.audit.runs import ExtremeFrame
from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.pipeline.audit.units import ConfidenceRows
from distinit.schemas.errors import CacheCorruptError

CLASSES = 1000


def rows_of(
    video: list[int], frame: list[int], entropy: list[float], top1: list[int] | None = None
) -> ConfidenceRows:
    count = len(video)
    return ConfidenceRows(
        row_N=np.arange(count),
        video_N=np.array(video, np.int64),
        frame_index_N=np.array(frame, np.int64),
        entropy_nats_N=np.array(entropy, np.float32),
        top1_class_N=np.array(top1 or [0] * count, np.int32),
        top1_probability_N=np.full(count, 0.5, np.float32),
    )


@settings(max_examples=60, deadline=None)
@given(
    entropy=st.lists(st.floats(0, 6.90625, width=32), min_size=1, max_size=80),
    videos=st.integers(1, 9),
    units=st.integers(1, 7),
)
def test_the_split_into_units_changes_nothing(
    entropy: list[float], videos: int, units: int
) -> None:
    entropy_N = np.array(entropy, np.float32)
    video_N = np.sort(np.arange(len(entropy)) % videos)
    scan = ConfidenceScan(videos, CLASSES)
    for part in np.array_split(np.arange(len(entropy)), units):
        scan.add(rows_of(video_N[part].tolist(), part.tolist(), entropy_N[part].tolist()))
    for threshold, frames in zip(scan.thresholds_nats, scan.kept_frames, strict=True):
        assert frames == (entropy_N <= threshold).sum()
    numbers, means = scan.mean_video_nats()
    for number, mean in zip(numbers, means, strict=True):
        expected = entropy_N[video_N == number].astype(np.float64).mean()
        assert mean == pytest.approx(expected, abs=1e-9)
    assert means.tolist() == sorted(means.tolist())
    for extreme in scan.extremes(videos, most_confident=True):
        own = entropy_N[video_N == extreme.video]
        assert extreme.entropy_nats == own.min()
        first = np.flatnonzero((video_N == extreme.video) & (entropy_N == own.min()))[0]
        assert extreme.frame_index == first


def test_thresholds_cover_the_range_in_exact_steps() -> None:
    assert ConfidenceScan(1, 1000).thresholds_nats.tolist() == [0.5 * k for k in range(1, 15)]
    assert ConfidenceScan(1, 2).thresholds_nats.tolist() == [0.0625 * k for k in range(1, 13)]


def test_a_frame_at_the_threshold_is_kept() -> None:
    scan = ConfidenceScan(1, CLASSES)
    scan.add(rows_of([0, 0, 0], [0, 1, 2], [0.5, np.nextafter(np.float32(0.5), 1), 6.9]))
    assert scan.kept_frames[:2].tolist() == [1, 2]
    assert scan.kept_frames[-1] == 3


def test_extremes_are_one_frame_per_video_in_order_of_confidence() -> None:
    scan = ConfidenceScan(4, CLASSES)  # video 3 failed: it has no rows
    scan.add(rows_of([0, 0, 1, 1], [0, 1, 0, 1], [0.1, 0.2, 3.0, 1.0], [5, 6, 7, 8]))
    scan.add(rows_of([1, 2], [2, 0], [0.05, 2.0], [9, 10]))  # video 1 spans two units
    assert scan.extremes(2, most_confident=True) == [
        ExtremeFrame(1, 2, float(np.float32(0.05)), 9, 0.5),
        ExtremeFrame(0, 0, float(np.float32(0.1)), 5, 0.5),
    ]
    least_confident = scan.extremes(9, most_confident=False)
    assert [(e.video, e.frame_index, e.top1_class) for e in least_confident] == [
        (1, 0, 7),
        (2, 0, 10),
    ]  # half of the three videos, rounded up


def test_classes_and_histogram_count_every_frame() -> None:
    scan = ConfidenceScan(2, CLASSES)
    scan.add(rows_of([0, 1, 1], [0, 0, 1], [0.0, 3.0, math.log(CLASSES)], [4, 4, 999]))
    edges, frames = scan.histogram()
    assert (len(edges), edges[0], edges[-1]) == (65, 0, 7)
    assert frames.sum() == 3
    assert (frames[0], frames[-1]) == (1, 1)
    assert {int(i): int(scan.class_frames[i]) for i in np.flatnonzero(scan.class_frames)} == {
        4: 2,
        999: 1,
    }


@pytest.mark.parametrize(
    ("entropy", "top1", "name"),
    [
        (float("nan"), 0, "entropy_nats"),
        (-0.1, 0, "entropy_nats"),
        (7.0, 0, "entropy_nats"),
        (1.0, CLASSES, "top1_class"),
        (1.0, -1, "top1_class"),
    ],
)
def test_impossible_values_are_refused(entropy: float, top1: int, name: str) -> None:
    scan = ConfidenceScan(1, CLASSES)
    with pytest.raises(CacheCorruptError, match=name):
        scan.add(rows_of([0, 0], [0, 1], [1.0, entropy], [0, top1]))
    assert scan.frames == 0


def test_bins_have_exact_edges_and_hold_what_is_at_or_below_the_upper_one() -> None:
    bins = EntropyBins.of(CLASSES)
    assert (bins.step_nats, bins.count, bins.merged) == (2**-8, 1792, 28)
    above = np.nextafter(np.float32(0.5), 1)
    assert bins.bins_of(np.array([0, 2**-8, 0.5, above, 6.95], np.float32)).tolist() == [
        0,
        0,
        127,
        128,
        1779,
    ]
    assert (bins.bin_at(0.5), bins.bin_at(0.001), bins.bin_at(99)) == (127, -1, 1791)
    assert EntropyBins.of(4).count == 1472
    assert EntropyBins.of(1).count == EntropyBins.of(2).count
