"""Renumbered classes: learnt from one half of the videos, judged on the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.audit.renumbering import RenumberedAgreement, RenumberingScan

CLASSES = 8


def scanned(video_N: np.ndarray, first_N: np.ndarray, second_N: np.ndarray) -> RenumberingScan:
    scan = RenumberingScan(CLASSES)
    scan.add(video_N, first_N.astype(np.int32), second_N.astype(np.int32))
    return scan


@given(st.permutations(range(CLASSES)))
def test_any_permutation_is_found(new: list[int]) -> None:
    video_N = np.repeat(np.arange(2 * CLASSES), 5)
    class_N = video_N // 2
    kept = sum(number == place for place, number in enumerate(new)) / CLASSES
    second_N = np.array(new)[class_N]
    found = scanned(video_N, class_N, second_N).agreement()
    assert found == RenumberedAgreement(without=kept, renumbered=1.0)


def test_a_mapping_that_other_videos_contradict_does_not_count() -> None:
    """Each video is consistent in itself; the second teacher sees something else in each."""
    video_N = np.repeat(np.arange(2 * CLASSES), 50)
    class_N = video_N // 2
    second_N = (class_N + 1 + video_N % 2) % CLASSES
    assert scanned(video_N, class_N, second_N).agreement() is None


def test_many_frames_of_one_video_count_once() -> None:
    """Classes 0 to 5 agree in videos 0 to 11; video 12 has 1,000 frames of classes 0 and 7."""
    video_N = np.append(np.arange(12), np.full(1000, 12))
    first_N = np.append(np.arange(12) // 2, np.full(1000, 0))
    second_N = np.append(np.arange(12) // 2, np.full(1000, 7))
    found = scanned(video_N, first_N, second_N).agreement()
    assert found is not None
    assert (found.without, found.renumbered) == pytest.approx((12 / 13, 12 / 13))


def test_a_teacher_that_names_one_class_only_is_not_renumbered() -> None:
    video_N = np.arange(64)
    assert scanned(video_N, video_N // 2 % CLASSES, 0 * video_N).agreement() is None


def test_without_classes_or_rows_there_is_no_agreement() -> None:
    assert RenumberingScan(0).agreement() is None
    assert RenumberingScan(CLASSES).agreement() is None
