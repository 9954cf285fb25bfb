"""kNN and retrieval against scikit-learn and against loops over all pairs of videos."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from distinit.pipeline.frozen import neighbours
from distinit.pipeline.frozen.neighbours import nearest_neighbours

CLASSES = 5


def features(seed: int, count: int, dim: int = 6) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features near one of CLASSES directions, of any length, and their labels."""
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, CLASSES, count)
    centre_CD = np.random.default_rng(9).standard_normal((CLASSES, dim))
    feature_ND = centre_CD[label_N] + 1.5 * rng.standard_normal((count, dim))
    length_N1 = rng.uniform(0.1, 10, (count, 1))
    return (length_N1 * feature_ND).astype(np.float32), label_N


TRAIN_ND, TRAIN_LABEL_N = features(0, 80)
TEST_MD, TEST_LABEL_M = features(1, 50)


def similar(one_D: NDArray[np.float32], other_D: NDArray[np.float32]) -> float:
    dot = sum(float(a) * float(b) for a, b in zip(one_D, other_D, strict=True))
    return dot / (math.hypot(*map(float, one_D)) * math.hypot(*map(float, other_D)))


def found(k: int) -> neighbours.Neighbours:
    tensors = map(torch.from_numpy, (TRAIN_ND, TRAIN_LABEL_N, TEST_MD))
    train_ND, label_N, test_MD = tensors
    return nearest_neighbours(train_ND, label_N, test_MD, k)


@pytest.mark.parametrize("k", [1, 7, 80])
@pytest.mark.parametrize("temperature", [0.07, 0.1])
def test_knn_equals_scikit_learn_and_a_loop(
    k: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_TESTS_AT_ONCE", 16)
    predicted_M = found(80).classify(k, temperature, CLASSES).numpy()
    weigh = KNeighborsClassifier(
        k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature), algorithm="brute"
    ).fit(TRAIN_ND.astype(np.float64), TRAIN_LABEL_N)
    assert predicted_M.tolist() == weigh.predict(TEST_MD.astype(np.float64)).tolist()
    for number, test_D in enumerate(TEST_MD):
        similarity_N = [similar(test_D, train_D) for train_D in TRAIN_ND]
        ranked = sorted(zip(similarity_N, TRAIN_LABEL_N.tolist(), strict=True), reverse=True)
        votes = [0.0] * CLASSES
        for similarity, label in ranked[:k]:
            votes[label] += math.exp(similarity / temperature)
        assert predicted_M[number] == votes.index(max(votes))


def test_k_is_capped_at_the_number_of_training_videos() -> None:
    assert found(1000).label_MK.shape == (50, 80)
    every = found(1000).classify(1000, 0.1, CLASSES)
    assert torch.equal(every, found(80).classify(80, 0.1, CLASSES))


@pytest.mark.parametrize("k", [1, 5])
def test_retrieval_equals_a_loop(k: int) -> None:
    hits = 0
    for test_D, true in zip(TEST_MD, TEST_LABEL_M, strict=True):
        similarity = [similar(test_D, train_D) for train_D in TRAIN_ND]
        nearest = sorted(range(80), key=lambda index: -similarity[index])[:k]
        hits += any(TRAIN_LABEL_N[index] == true for index in nearest)
    assert 10 < hits < 50
    assert found(5).retrieved(torch.from_numpy(TEST_LABEL_M), k) == hits


def test_neighbours_are_sorted_and_their_votes_do_not_overflow() -> None:
    nearest = found(80)
    assert bool((nearest.similarity_MK.diff(dim=1) <= 0).all())
    assert float(nearest.similarity_MK.max()) <= 1 + 1e-6
    sharp = nearest.classify(80, 1e-4, CLASSES)  # the nearest one decides; exp(10,000) overflows
    assert torch.equal(sharp, nearest.label_MK[:, 0])


def test_of_equal_votes_the_lower_class_wins_and_a_zero_vector_is_no_error() -> None:
    train_ND = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    nearest = nearest_neighbours(train_ND, torch.tensor([1, 0]), torch.zeros(1, 2), 2)
    assert nearest.similarity_MK.tolist() == [[0.0, 0.0]]
    assert nearest.classify(2, 0.1, 2).tolist() == [0]
