"""Estimates for a corpus from a sample of its videos: exact arithmetic."""

from __future__ import annotations

import math
import random

import pytest

from distinit.pipeline.planning.estimate import (
    Speed,
    TargetWidth,
    Total,
    estimate_hours,
    estimate_total,
    logit_bytes,
)


def test_a_sample_of_all_videos_is_exact() -> None:
    assert estimate_total([3, 5, 10], 3) == Total(18, 18, 18)
    assert estimate_total([7], 1) == Total(7, 7, 7)


def test_totals_are_mean_times_number_plus_or_minus_two_standard_errors() -> None:
    # mean 200, deviation 100, 3 of 12 seen: 2 * 12 * 100 * sqrt(.75 / 3) = 1200
    assert estimate_total([100, 200, 300], 12) == Total(2400, 1200, 3600)
    # the total is at least that of the sample
    assert estimate_total([0, 100], 4) == Total(200, 100, round(200 + 400 / math.sqrt(2)))
    assert estimate_total([50], 3) == Total(150, 50, round(150 + 300 * math.sqrt(2 / 3)))


@pytest.mark.parametrize("sampled", [[], [1, 2]])
def test_empty_and_too_large_samples_are_refused(sampled: list[int]) -> None:
    with pytest.raises(ValueError, match="from 1 videos"):
        estimate_total(sampled, 1)


def test_the_interval_contains_the_true_total_about_19_times_in_20() -> None:
    rng = random.Random(0)
    corpus = [int(rng.lognormvariate(5, 0.5)) for _ in range(500)]
    hits = 0
    for _ in range(400):
        total = estimate_total(rng.sample(corpus, 40), len(corpus))
        hits += total.low <= sum(corpus) <= total.high
    assert 0.90 <= hits / 400 <= 0.99


def test_bytes_of_targets_by_encoding() -> None:
    imagenet, places = TargetWidth(1000), TargetWidth(365)
    found = logit_bytes(10, [imagenet, places], ["float16", "int8", "topk:32", "topk:365"])
    assert found == {
        "float16": 10 * (2000 + 730),
        "int8": 10 * (1008 + 373),
        "topk:32": 10 * (128 + 128),  # f16 values and u16 ids; 365 keeps every class of one
    }
    features = TargetWidth(2048, has_classes=False)
    assert logit_bytes(3, [features], ["float16", "topk:32"]) == {"float16": 3 * 4096}


def test_hours_add_up_unless_decoding_and_teachers_overlap() -> None:
    speed = Speed(frames_per_second=100, rows_per_second=(50, 25), overlap=False)
    # Decoding takes 3600 s; the teachers take 3600 s and 7200 s for 180,000 rows.
    assert estimate_hours(360_000, 180_000, speed, [1, 2, 8]) == {1: 4.0, 2: 2.0, 8: 0.5}
    speed = Speed(frames_per_second=100, rows_per_second=(50, 25), overlap=True)
    assert estimate_hours(360_000, 180_000, speed, [1, 3]) == {1: 3.0, 3: 1.0}
    alone = Speed(frames_per_second=100, rows_per_second=(), overlap=False)
    assert estimate_hours(360_000, 180_000, alone, [1]) == {1: 1.0}
