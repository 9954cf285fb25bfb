"""Properties of the parts of a training set, for any labels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distinit.pipeline.frozen.subsets import few_per_class, held_out

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(
    lambda labels: np.array(labels, np.int64)
)


@given(LABELS, st.integers(1, 12), st.integers(0, 5), st.integers(0, 3))
def test_a_draw_has_exactly_n_videos_of_each_class(
    label_N: NDArray[np.int64], shots: int, draw: int, seed: int
) -> None:
    index_S = few_per_class(label_N, shots, draw, seed)
    assert index_S.tolist() == sorted(set(index_S.tolist()))
    for label in range(5):
        have = int((label_N == label).sum())
        assert int((label_N[index_S] == label).sum()) == min(shots, have)
    assert index_S.tolist() == few_per_class(label_N, shots, draw, seed).tolist()


@given(LABELS, st.integers(1, 4), st.integers(0, 3))
def test_draws_are_disjoint_while_a_class_has_enough_videos(
    label_N: NDArray[np.int64], shots: int, seed: int
) -> None:
    draws = [few_per_class(label_N, shots, draw, seed) for draw in range(3)]
    for label in range(5):
        members = np.flatnonzero(label_N == label)
        chosen = [index for index_S in draws for index in index_S if label_N[index] == label]
        if len(members) >= 3 * shots:
            assert len(set(chosen)) == 3 * shots
        elif len(members) > shots:  # no video is drawn again before all of them were drawn
            counts = np.bincount(chosen, minlength=len(label_N))[members]
            assert counts.max() - counts.min() <= 1


@given(LABELS, st.integers(0, 3))
def test_all_shots_are_all_videos(label_N: NDArray[np.int64], draw: int) -> None:
    assert few_per_class(label_N, None, draw, 0).tolist() == list(range(len(label_N)))


def test_another_seed_draws_other_videos() -> None:
    label_N = np.repeat(np.arange(3), 40)
    assert few_per_class(label_N, 5, 0, 0).tolist() != few_per_class(label_N, 5, 0, 1).tolist()


@given(LABELS)
def test_a_fifth_of_each_class_is_held_out_and_every_class_stays(
    label_N: NDArray[np.int64],
) -> None:
    paths = [f"v{number}.avi" for number in range(len(label_N))]
    held_N = held_out(paths, label_N)
    for label in set(label_N.tolist()):
        members = np.flatnonzero(label_N == label)
        expected = 0 if len(members) == 1 else max(1, len(members) // 5)
        assert held_N[members].sum() == expected
        # Paths are in order of their numbers here: the last ones are held out.
        assert not held_N[members[: len(members) - expected]].any()


def test_numbers_in_paths_are_ordered_as_numbers() -> None:
    paths = ["c/10.avi", "c/9.avi", "c/100.avi", "d/2_b.avi", "d/2_a.avi", "d/10_a.avi"]
    label_N = np.array([0, 0, 0, 1, 1, 1])
    assert held_out(paths, label_N).tolist() == [False, False, True, False, False, True]
