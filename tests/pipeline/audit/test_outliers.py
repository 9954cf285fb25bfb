"""Outliers are the frames furthest from the other frames of their videos."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinit.pipeline.audit.outliers import outlier_frames
from distinit.pipeline.audit.samples import VideoNames
from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.pipeline.audit.units import ConfidenceRows


def scan_of(videos: list[list[float]]) -> ConfidenceScan:
    """A scan of the entropies of each video, of 1,000 classes, in one unit."""
    length_V = [len(entropies) for entropies in videos]
    count = sum(length_V)
    scan = ConfidenceScan(len(videos), 1000)
    scan.add(
        ConfidenceRows(
            row_N=np.arange(count),
            video_N=np.repeat(np.arange(len(videos)), length_V),
            frame_index_N=np.concatenate([np.arange(length) for length in length_V]),
            entropy_nats_N=np.concatenate(videos).astype(np.float32),
            top1_class_N=np.zeros(count, np.int32),
            top1_probability_N=np.full(count, 0.5, np.float32),
        )
    )
    return scan


def names_of(scan: ConfidenceScan) -> VideoNames:
    numbers = range(len(scan.video_frames))
    return VideoNames([f"id{n}" for n in numbers], [f"video{n}.mp4" for n in numbers])


def test_one_frame_per_video_the_furthest_first() -> None:
    low = [3.0, 3.5] * 10 + [0.5]
    high = [1.0, 2.0] * 10 + [6.0, 5.0]
    calm = [2.0, 2.5] * 10
    scan = scan_of([calm, high, low])
    first, second = outlier_frames(scan, names_of(scan), ("cat",), 9)
    assert (first.path, first.frame_index, first.entropy_nats) == ("video2.mp4", 20, 0.5)
    assert (first.others_mean_nats, first.deviations) == (3.25, pytest.approx(2.75 / 0.25))
    assert (second.path, second.frame_index) == ("video1.mp4", 20)
    others = np.array(high[:20] + high[21:])
    assert second.others_mean_nats == pytest.approx(others.mean())
    assert second.deviations == pytest.approx((6.0 - others.mean()) / others.std())
    assert [f.path for f in outlier_frames(scan, names_of(scan), (), 1)] == ["video2.mp4"]


def test_still_and_short_videos_have_none() -> None:
    still = [2.0] * 50 + [2.25]  # 2.5 times the least spread of 0.1 nats
    short = [0.0, 0, 0, 0, 0, 0, 6]
    scan = scan_of([still, short])
    assert outlier_frames(scan, names_of(scan), (), 9) == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 6.875, width=16), min_size=8, max_size=40))
def test_no_frame_of_the_video_is_further_away(entropies: list[float]) -> None:
    scan = scan_of([entropies])
    distances = []
    for place, entropy in enumerate(entropies):
        others = np.array(entropies[:place] + entropies[place + 1 :])
        distances.append(abs(entropy - others.mean()) / max(others.std(), 0.1))
    found = outlier_frames(scan, names_of(scan), (), 9)
    if max(distances) < 2.999:
        assert found == ()
    elif max(distances) > 3.001:
        assert found[0].deviations == pytest.approx(max(distances), rel=1e-6)
