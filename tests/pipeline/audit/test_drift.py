"""The distance between two caches is exact, and its interval separates drift from noise."""

from __future__ import annotations

import numpy as np
import pytest

from distinit.pipeline.audit.drift import DriftScan, class_distance, entropy_distance
from distinit.pipeline.audit.units import ConfidenceRows

VIDEOS, FRAMES, CLASSES = 40, 25, 10


def scan_of(
    seed: int, shift_nats: float = 0, top1: int | None = None, videos: int = VIDEOS
) -> DriftScan:
    rng = np.random.default_rng(seed)
    scan = DriftScan(VIDEOS, CLASSES, seed)
    count = videos * FRAMES
    entropy_N = np.clip(rng.normal(1 + shift_nats, 0.3, count), 0, np.log(CLASSES))
    top1_N = rng.integers(0, CLASSES, count) if top1 is None else np.full(count, top1)
    video_N = np.repeat(np.arange(videos), FRAMES)
    rows = ConfidenceRows(
        np.arange(count),
        video_N,
        np.tile(np.arange(FRAMES), videos),
        entropy_N.astype(np.float32),
        top1_N.astype(np.int32),
        np.full(count, 0.5, np.float32),
    )
    for part in np.array_split(np.arange(count), 3):
        scan.add(rows.taken(part))
    return scan


def test_equal_caches_differ_by_no_more_than_their_noise() -> None:
    first, same = scan_of(0), scan_of(1)
    assert first.frames == VIDEOS * FRAMES
    for distance in (entropy_distance(first, same), class_distance(first, same)):
        assert distance.noise is not None
        assert 0 < distance.value < distance.noise
        assert distance.in_words().startswith("no more than chance: ")
    assert entropy_distance(first, first).value == 0


def test_a_shift_is_measured_in_nats() -> None:
    found = entropy_distance(scan_of(0), scan_of(1, shift_nats=0.5))
    assert found.value == pytest.approx(0.5, abs=0.03)
    assert found.low is not None
    assert found.high is not None
    assert found.noise is not None
    assert found.low <= found.value <= found.high
    assert found.in_words(" nats").startswith("more than chance: ")
    assert found.low > 5 * found.noise


def test_disjoint_classes_have_distance_1() -> None:
    assert class_distance(scan_of(0, top1=3), scan_of(1, top1=4)).value == 1


def test_each_resample_weights_whole_videos() -> None:
    scan = scan_of(0)
    assert (scan.entropy_RK.sum(axis=1) % FRAMES == 0).all()
    assert scan.class_RC[0].sum() == scan.entropy_RK[0].sum() == VIDEOS * FRAMES


def test_few_videos_have_a_distance_without_an_interval() -> None:
    few = scan_of(1, shift_nats=0.5, videos=9)
    assert few.videos == 9
    found = entropy_distance(scan_of(0), few)
    assert (found.low, found.high, found.noise) == (None, None, None)
    assert found.value == pytest.approx(0.5, abs=0.05)
    assert found.in_words().startswith("too few videos")
    assert entropy_distance(scan_of(0), scan_of(1, videos=10)).noise is not None
