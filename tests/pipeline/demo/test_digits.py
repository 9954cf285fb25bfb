"""Films of moving digits: the pools are disjoint, and the films show what their classes say."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

import numpy as np
import pytest

from distinit.pipeline.demo.digits import (
    DIGIT_MOTIONS,
    DigitFilm,
    corpus_films,
    film_digit,
    labelled_films,
    pool,
    stills,
)

POOLS = {"teacher": 600, "corpus": 700, "train": 60, "test": 80, "held_out": 200}


def ink_of(film: DigitFilm) -> np.ndarray:
    """float [T, H, W]: how much brighter each pixel is than the darkest that it ever is."""
    gray_THW = film_digit(film).astype(float).mean(axis=3)
    ink_THW = gray_THW - gray_THW.min(axis=0)
    return np.where(ink_THW > 40, ink_THW, 0.0)


def test_no_scan_is_in_two_pools_or_twice_in_one() -> None:
    scans = [scan for name in POOLS for scan, _ in pool(name)]
    assert len(scans) == len(set(scans)) == sum(POOLS.values())
    for name, count in POOLS.items():
        labels = Counter(label for _, label in pool(name))
        assert labels == dict.fromkeys(range(10), count // 10)


def test_test_films_have_photographs_of_their_own() -> None:
    photos = {split: {film.photo for film in labelled_films(split)} for split in ("train", "test")}
    assert len(photos["test"]) == 6
    assert photos["test"].isdisjoint(photos["train"])
    assert photos["test"].isdisjoint({film.photo for film in corpus_films()})


@pytest.mark.parametrize(("split", "per_class"), [("train", 6), ("test", 8)])
def test_labelled_films_are_balanced_over_digits_and_motions(split: str, per_class: int) -> None:
    films = labelled_films(split)
    classes = Counter(PurePosixPath(film.path).parent.name for film in films)
    expected = {f"{digit}_{motion}" for digit in range(10) for motion in DIGIT_MOTIONS}
    assert classes == dict.fromkeys(expected, per_class)
    assert all(PurePosixPath(f.path).parent.name == f"{f.label}_{f.motion}" for f in films)
    assert len({film.path for film in films}) == len(films) == 50 * per_class


def test_corpus_films_are_one_per_scan_and_name_no_class() -> None:
    films = corpus_films()
    assert [(film.scan, film.label) for film in films] == list(pool("corpus"))
    assert {PurePosixPath(film.path).parent.name for film in films} == {"corpus"}
    assert set(Counter(film.motion for film in films)) == set(DIGIT_MOTIONS)


def test_a_film_is_the_same_each_time() -> None:
    film = labelled_films("test")[7]
    assert np.array_equal(film_digit(film), film_digit(film))
    assert film_digit(film).shape == (24, 64, 64, 3)
    assert film_digit(film).dtype == np.uint8


@pytest.mark.parametrize("motion", DIGIT_MOTIONS)
def test_films_move_as_their_class_says(motion: str) -> None:
    for film in [film for film in labelled_films("train") if film.motion == motion][::12]:
        ink_THW = ink_of(film)
        rows = np.arange(64)[:, None]
        centre_y = [(frame * rows).sum() / frame.sum() for frame in (ink_THW[4], ink_THW[-5])]
        area = [int((frame > 0).sum()) for frame in (ink_THW[2], ink_THW[-3])]
        moved = centre_y[1] - centre_y[0]
        if motion in ("up", "down"):
            assert moved * (1 if motion == "down" else -1) > 6
        elif motion in ("grow", "shrink"):
            larger, smaller = area if motion == "shrink" else area[::-1]
            assert larger > 1.3 * smaller
        else:
            assert abs(moved) < 6
            assert max(area) < 1.6 * min(area)


def test_stills_show_each_scan_in_different_poses() -> None:
    found = list(stills("train", per_scan=2, seed=0))
    assert [label for _, label in found] == [label for _, label in pool("train") for _ in "ab"]
    assert all(frame.shape == (64, 64, 3) for frame, _ in found)
    assert not np.array_equal(found[0][0], found[1][0])
    again = list(stills("train", per_scan=2, seed=0))
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(found, again, strict=True))
