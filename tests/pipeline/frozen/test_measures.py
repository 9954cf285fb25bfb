"""All measures of one set of made-up features."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from distinit.pipeline.evaluation.intervals import wilson_interval
from distinit.pipeline.frozen.linear import Standardiser, train_probes
from distinit.pipeline.frozen.measures import FrozenFeatures, measure, steps_of
from distinit.pipeline.frozen.subsets import few_per_class
from distinit.schemas.probe import Measures, ProbeConfig

CLASSES, TEST = 3, 30


def config(**values: Any) -> ProbeConfig:
    linear = {"learning_rates": (0.03, 0.3), "weight_decays": (0.0, 0.01), "steps": 30}
    defaults = {"dataset": {"root": "x"}, "out": "y", "linear": linear, "shots": (1, 4)}
    return ProbeConfig.model_validate(defaults | {"neighbours": (3, 200), "draws": 2} | values)


def made(noise: float, absent_tests: int = 0) -> FrozenFeatures:
    """12 training and 10 test videos per class; one of four training videos is held out."""
    rng = np.random.default_rng(0)
    centre_CD = 3 * np.eye(CLASSES)
    parts = []
    for count in (12, 10):
        label_N = np.repeat(np.arange(CLASSES), count)
        feature_ND = centre_CD[label_N] + noise * rng.standard_normal((len(label_N), CLASSES))
        parts += [torch.from_numpy(feature_ND).float(), torch.from_numpy(label_N)]
    train_ND, train_label_N, test_MD, test_label_M = parts
    return FrozenFeatures(
        train_ND,
        train_label_N,
        np.arange(len(train_ND)) % 4 == 3,
        test_MD,
        test_label_M,
        TEST + absent_tests,
        CLASSES,
    )


def measured(features: FrozenFeatures, **values: Any) -> Measures:
    return measure(features, config(**values), lambda steps: None)


def test_features_of_separate_classes_are_perfect_everywhere() -> None:
    measures = measured(made(noise=0.1))
    # k 200 is capped at the 36 training videos: with equal classes the nearest ones still decide.
    assert [(s.k, s.used_k, s.top1) for s in measures.knn] == [
        (3, 3, 100.0),
        (3, 3, 100.0),
        (200, 36, 100.0),
        (200, 36, 100.0),
    ]
    assert measures.retrieval == {"1": 100.0, "5": 100.0}
    assert measures.linear.top1 == 100.0
    low, high = wilson_interval(30, 30)
    assert measures.linear.interval == (100 * low, 100 * high)
    assert [(few.shots, few.top1_mean, few.top1_sd) for few in measures.low_shot] == [
        (1, 100.0, 0.0),
        (4, 100.0, 0.0),
        (None, 100.0, 0.0),
    ]
    assert {point.test_top1 for point in measures.grid} == {100.0}


def test_a_test_video_without_features_counts_as_wrong() -> None:
    measures = measured(made(noise=0.1, absent_tests=10))
    assert {score.top1 for score in measures.knn} == {75.0}
    assert measures.retrieval == {"1": 75.0, "5": 75.0}
    assert measures.linear.top1 == 75.0
    assert {point.test_top1 for point in measures.grid} == {75.0}
    assert {point.held_out_top1 for point in measures.grid} == {100.0}


def test_the_choice_is_the_best_on_held_out_videos_and_ignores_the_test_set() -> None:
    features = made(noise=3.0)
    measures = measured(features)
    best = max(measures.grid, key=lambda p: (p.held_out_top1 or 0, -(p.held_out_loss_nats or 0)))
    assert (measures.learning_rate, measures.weight_decay) == (
        best.learning_rate,
        best.weight_decay,
    )
    assert len({point.held_out_loss_nats for point in measures.grid}) == 4
    shuffled = dataclasses.replace(features, test_label_M=features.test_label_M.roll(10))
    other = measured(shuffled)
    assert other.learning_rate == measures.learning_rate
    assert other.weight_decay == measures.weight_decay
    assert other.linear.top1 < measures.linear.top1


def test_low_shot_trains_on_the_drawn_videos_with_the_chosen_settings() -> None:
    features, settings = made(noise=2.0), config()
    measures = measured(features)
    scale = Standardiser.of(features.train_ND)
    expected = []
    for draw in range(2):
        chosen_S = torch.from_numpy(few_per_class(features.train_label_N.numpy(), 4, draw, 0))
        assert len(chosen_S) == 12
        probes = train_probes(
            scale(features.train_ND)[chosen_S],
            features.train_label_N[chosen_S],
            CLASSES,
            [(measures.learning_rate, measures.weight_decay)],
            settings.linear,
            seed=(0, 1, draw),
        )
        correct = probes.predict(scale(features.test_MD))[0] == features.test_label_M
        expected.append(100 * int(correct.sum()) / TEST)
    few = measures.low_shot[1]
    assert few.top1 == tuple(expected)
    assert expected[0] != expected[1]
    assert few.top1_mean == sum(expected) / 2
    assert few.top1_sd == pytest.approx(np.std(expected, ddof=1))
    assert measures.linear.top1 == measures.low_shot[2].top1[0]


def test_measures_depend_on_the_seed_only_and_all_steps_are_counted() -> None:
    features, done = made(noise=3.0), []
    one = measure(features, config(), done.append)
    assert sum(done) == steps_of(config()) == 30 * (1 + 3 * 2)
    torch.rand(3)
    assert measured(features) == one
    assert measured(features, seed=1).low_shot[0] != one.low_shot[0]


def test_without_held_out_videos_the_first_setting_is_chosen() -> None:
    features = dataclasses.replace(made(noise=0.1), held_out_N=np.zeros(36, np.bool_))
    measures = measured(features)
    assert (measures.learning_rate, measures.weight_decay) == (0.03, 0.0)
    assert {point.held_out_top1 for point in measures.grid} == {None}
    assert measures.linear.top1 == 100.0
