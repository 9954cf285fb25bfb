"""Measures how well frozen features tell the classes of a labelled dataset apart."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.evaluation.intervals import wilson_interval
from distinit.pipeline.frozen.linear import Standardiser, train_probes
from distinit.pipeline.frozen.neighbours import nearest_neighbours
from distinit.pipeline.frozen.subsets import few_per_class
from distinit.schemas.probe import (
    GridPoint,
    KnnScore,
    LowShotScore,
    Measures,
    ProbeConfig,
    Score,
)

__all__ = ["FrozenFeatures", "measure", "steps_of"]

_RETRIEVED = (1, 5)
# Keeps the random numbers of the grid and of the draws apart.
_GRID_SEED, _DRAW_SEED = 0, 1


@dataclass(frozen=True, slots=True)
class FrozenFeatures:
    """Features of N training and M test videos on one device."""

    train_ND: Tensor
    train_label_N: Tensor
    held_out_N: NDArray[np.bool_]
    """Training videos that settings are chosen on."""
    test_MD: Tensor
    test_label_M: Tensor
    test_videos: int
    """Videos to divide accuracies by: M, and those without features, which count as wrong."""
    classes: int


def steps_of(config: ProbeConfig) -> int:
    """How many optimiser steps ``measure`` counts."""
    return config.linear.steps * (1 + (len(config.shots) + 1) * config.draws)


def measure(
    features: FrozenFeatures, config: ProbeConfig, advance: Callable[[int], None]
) -> Measures:
    """kNN, retrieval, linear classifiers and low-shot accuracy; depends only on ``config.seed``.

    ``advance`` is called with numbers of optimiser steps done, ``steps_of`` in all.
    """
    nearest = nearest_neighbours(
        features.train_ND,
        features.train_label_N,
        features.test_MD,
        max(*config.neighbours, *_RETRIEVED),
    )
    knn = []
    for k in config.neighbours:
        for temperature in config.temperatures:
            predicted_M = nearest.classify(k, temperature, features.classes)
            score = _score(predicted_M, features).model_dump()
            used_k = min(k, len(features.train_ND))
            knn.append(KnnScore(k=k, used_k=used_k, temperature=temperature, **score))
    retrieved = {k: nearest.retrieved(features.test_label_M, k) for k in _RETRIEVED}
    scale = Standardiser.of(features.train_ND)
    train_ND, test_MD = scale(features.train_ND), scale(features.test_MD)
    grid = _grid(train_ND, test_MD, features, config, advance)
    best = max(grid, key=_preference)
    setting = (best.learning_rate, best.weight_decay)
    few = [
        _low_shot(train_ND, test_MD, features, shots, setting, config, advance)
        for shots in (*config.shots, None)
    ]
    return Measures(
        knn=tuple(knn),
        retrieval={str(k): _percent(n, features.test_videos) for k, n in retrieved.items()},
        linear=few[-1][0],
        learning_rate=best.learning_rate,
        weight_decay=best.weight_decay,
        low_shot=tuple(score for _, score in few),
        grid=grid,
    )


def _preference(point: GridPoint) -> tuple[float, float]:
    """Higher held-out accuracy first, then the lower held-out loss; then the order of the grid."""
    return (
        0.0 if point.held_out_top1 is None else point.held_out_top1,
        0.0 if point.held_out_loss_nats is None else -point.held_out_loss_nats,
    )


def _grid(
    train_ND: Tensor,
    test_MD: Tensor,
    features: FrozenFeatures,
    config: ProbeConfig,
    advance: Callable[[int], None],
) -> tuple[GridPoint, ...]:
    """Every classifier of the grid, trained on the videos that are not held out."""
    held_N = torch.from_numpy(features.held_out_N).to(train_ND.device)
    label_N = features.train_label_N
    probes = train_probes(
        train_ND[~held_N],
        label_N[~held_N],
        features.classes,
        config.linear.grid,
        config.linear,
        seed=(config.seed, _GRID_SEED),
        advance=advance,
    )
    held_HD, held_label_H = train_ND[held_N], label_N[held_N]
    held_correct_G = (probes.predict(held_HD) == held_label_H).sum(dim=1).tolist()
    loss_G = probes.losses(held_HD, held_label_H).tolist()
    correct_G = (probes.predict(test_MD) == features.test_label_M).sum(dim=1).tolist()
    count = len(held_label_H)
    return tuple(
        GridPoint(
            learning_rate=rate,
            weight_decay=decay,
            held_out_top1=_percent(held_correct, count) if count else None,
            held_out_loss_nats=loss if count else None,
            test_top1=_percent(correct, features.test_videos),
        )
        for (rate, decay), held_correct, loss, correct in zip(
            config.linear.grid, held_correct_G, loss_G, correct_G, strict=True
        )
    )


def _low_shot(
    train_ND: Tensor,
    test_MD: Tensor,
    features: FrozenFeatures,
    shots: int | None,
    setting: tuple[float, float],
    config: ProbeConfig,
    advance: Callable[[int], None],
) -> tuple[Score, LowShotScore]:
    """The score of the first draw, and the accuracies of all draws."""
    scores = []
    for draw in range(config.draws):
        chosen_S = torch.from_numpy(
            few_per_class(features.train_label_N.cpu().numpy(), shots, draw, config.seed)
        ).to(train_ND.device)
        probes = train_probes(
            train_ND[chosen_S],
            features.train_label_N[chosen_S],
            features.classes,
            [setting],
            config.linear,
            seed=(config.seed, _DRAW_SEED, draw),
            advance=advance,
        )
        scores.append(_score(probes.predict(test_MD)[0], features))
    top1 = tuple(score.top1 for score in scores)
    return scores[0], LowShotScore(
        shots=shots,
        top1_mean=statistics.fmean(top1),
        top1_sd=statistics.stdev(top1) if len(top1) > 1 else None,
        top1=top1,
    )


def _score(predicted_M: Tensor, features: FrozenFeatures) -> Score:
    correct = int((predicted_M == features.test_label_M).sum())
    low, high = wilson_interval(correct, features.test_videos)
    return Score(top1=_percent(correct, features.test_videos), interval=(100 * low, 100 * high))


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole
