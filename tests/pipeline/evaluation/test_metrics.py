"""Accuracies equal those computed by hand, with ties, few classes and failed videos."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.evaluation.epochs import epoch_metrics
from distinit.pipeline.evaluation.metrics import (
    ScoreBoard,
    class_ranks,
    clip_scores,
    confusion_matrix,
)
from distinit.schemas.errors import ComputeError
from distinit.schemas.evaluation import Average


def test_ranks_break_ties_by_class_index() -> None:
    scores = np.array([[0.1, 0.5, 0.5], [0.2, 0.2, 0.6], [1 / 3] * 3])
    assert class_ranks(scores, np.array([2, 1, 0])).tolist() == [1, 2, 0]


@given(st.integers(0, 2**32 - 1))
def test_ranks_equal_a_stable_sort(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (6, 7)).astype(float)
    labels = rng.integers(0, 7, 6)
    order = np.argsort(-scores, axis=1, kind="stable")
    expected = [row.tolist().index(label) for row, label in zip(order, labels, strict=True)]
    assert class_ranks(scores, labels).tolist() == expected


def test_the_confusion_matrix_counts_true_and_predicted_classes() -> None:
    matrix = confusion_matrix(np.array([0, 0, 2, 1]), np.array([0, 2, 2, 0]), 3)
    assert matrix.tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 1]]


def test_the_score_of_a_video_is_the_mean_over_its_clips() -> None:
    board = ScoreBoard([0, 1], classes=6)
    confident, unsure = np.eye(6)[0], np.array([0.3, 0.4, 0.1, 0.1, 0.06, 0.04])
    # Video 0: a confident correct clip and a narrowly wrong one: correct.
    # Video 1: two narrowly correct clips and a confident wrong one: wrong.
    board.add(np.array([0, 1, 1]), np.array([1, 2, 1]), np.stack([confident, unsure, confident]))
    board.add(np.array([0]), np.array([1]), unsure[None])
    result = board.result("vmz-x", [])
    assert (result.videos, result.clips) == (2, 5)
    assert result.per_clip == pytest.approx(100 * 3 / 5)
    assert result.top1 == 50.0
    assert result.top5 == 100.0
    assert result.confusion[0] == (1, 0, 0, 0, 0, 0)
    assert result.confusion[1] == (1, 0, 0, 0, 0, 0)


def test_top5_includes_the_fifth_best_class_but_not_the_sixth() -> None:
    board = ScoreBoard([5, 4], classes=6)
    descending = np.array([0.3, 0.25, 0.2, 0.15, 0.06, 0.04])
    board.add(np.array([0, 1]), np.array([1, 1]), np.stack([descending, descending]))
    assert board.result("vmz-1", []).top5 == 50.0


def test_top5_is_100_percent_with_up_to_five_classes() -> None:
    board = ScoreBoard([0, 1], classes=2)
    board.add(np.array([0, 1]), np.array([1, 1]), np.array([[0.1, 0.9], [0.9, 0.1]]))
    result = board.result("vmz-1", [])
    assert (result.top1, result.top5) == (0.0, 100.0)


def test_failed_videos_count_as_wrong_and_are_listed() -> None:
    board = ScoreBoard([0, 1, 1, 0], classes=2)
    board.add(np.array([0, 1]), np.array([10, 10]), np.array([[0.9, 0.1], [0.1, 0.9]]))
    board.add_failed(2, "vmz-10")
    result = board.result("vmz-10", ["c.avi", "d.avi"])
    assert (result.videos, result.clips) == (4, 40)
    assert (result.per_clip, result.top1, result.top5) == (50.0, 50.0, 50.0)
    assert result.failed_videos == ("c.avi", "d.avi")
    assert result.class_top1 == (50.0, 50.0)
    assert sum(map(sum, result.confusion)) == 2
    assert "2 test videos (50.0 %) could not be decoded" in result.summary()


CLIPS = np.log(np.array([[0.6, 0.3, 0.1], [0.05, 0.3, 0.65], [0.01, 0.29, 0.7]], np.float32))


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        # Clips 0 and 1 count once, clip 2 twice.
        ("softmax", [0.67 / 4, 1.18 / 4, 2.15 / 4]),
        (
            "logits",
            [
                np.log(0.6 * 0.05 * 0.01**2) / 4,
                np.log(0.3**2 * 0.29**2) / 4,
                np.log(0.1 * 0.65 * 0.7**2) / 4,
            ],
        ),
        ("max", [0.6, 0.3, 0.7]),
    ],
)
def test_each_average_equals_that_computed_by_hand(average: Average, expected: Any) -> None:
    board = ScoreBoard([2], classes=3, average=average)
    scores = clip_scores(CLIPS, average)
    # In two parts, of which the second comes first.
    board.add(np.array([0]), np.array([2]), scores[2:])
    board.add(np.array([0, 0]), np.array([1, 1]), scores[:2])
    np.testing.assert_allclose(board.video_scores()[0], expected, atol=1e-6)
    result = board.result("vmz-4", [])
    assert (result.average, result.per_clip, result.top1) == (average, 75.0, 100.0)


def test_averages_can_disagree() -> None:
    logits = np.log(np.array([[0.98, 0.01, 0.01], [0.001, 0.5, 0.499]], np.float32))
    predicted = {}
    for average in get_args(Average):
        board = ScoreBoard([0], classes=3, average=average)
        board.add(np.array([0, 0]), np.array([1, 2]), clip_scores(logits, average))
        predicted[average] = board.video_scores()[0].argmax()
    assert predicted == {"softmax": 1, "logits": 1, "max": 0}


@pytest.mark.parametrize("average", get_args(Average))
def test_boards_of_workers_add_up_to_one_board(average: Average) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 6)
    videos = np.repeat(np.arange(6), 5)
    scores = clip_scores(rng.normal(size=(30, 4)).astype(np.float32), average)
    weights = rng.integers(1, 3, 30)

    def board(of: set[int]) -> ScoreBoard:
        made = ScoreBoard(labels.tolist(), 4, average)
        chosen = np.isin(videos, list(of))
        made.add(videos[chosen], weights[chosen], scores[chosen])
        made.add_failed(1, "vmz-3")
        return made

    others = [board({0, 3}), board({2})]

    class Sum:
        rank, world_size = 2, 3

        def sum_(self, tensor: torch.Tensor) -> None:
            for other in others:
                other.sum_over(Recorder(), torch.device("cpu"))

            tensor += sum(seen)

    seen: list[torch.Tensor] = []

    class Recorder:
        rank, world_size = 0, 3

        def sum_(self, tensor: torch.Tensor) -> None:
            seen.append(tensor.clone())

    mine = board({1, 4, 5})
    mine.sum_over(Sum(), torch.device("cpu"))
    whole = board(set(range(6)))
    assert mine.result("vmz-3", []) == whole.result("vmz-3", [])
    np.testing.assert_array_equal(mine.video_scores(), whole.video_scores())


def test_a_diverged_student_is_an_error() -> None:
    board = ScoreBoard([0], classes=2)
    with pytest.raises(ComputeError, match="not a finite number"):
        board.add(np.array([0]), np.array([1]), np.array([[np.nan, 1.0]]))


@pytest.mark.parametrize(("classes", "shown"), [(5, False), (6, True)])
def test_top5_is_only_shown_with_more_than_five_classes(classes: int, shown: bool) -> None:
    board = ScoreBoard([0], classes=classes)
    board.add(np.array([0]), np.array([1]), np.eye(classes)[:1])
    result = board.result("vmz-1", [])
    assert ("top-5" in result.summary()) == shown
    assert ("top5" in epoch_metrics(result)) == shown
