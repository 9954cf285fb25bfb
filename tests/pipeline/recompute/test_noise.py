"""The noise floor is measured with the teacher itself."""

from __future__ import annotations

import numpy as np
import pytest

from distinit.pipeline.recompute.noise import (
    MARGIN,
    NoiseFloor,
    deviation_of,
    measure_floor,
    spread_of,
)
from distinit.pipeline.teachers.null import NullTeacher
from distinit.pipeline.teachers.variations import pixels_rounded
from distinit.schemas.teacher import TeacherRequest


def test_deviations_are_shares_of_the_spread() -> None:
    reference_NC = np.array([[0, 2], [5, 5]], np.float32)
    assert spread_of(reference_NC).tolist() == [1.0, pytest.approx(0.005)]
    moved_NC = reference_NC + np.array([[0.5, 0], [0, -0.01]], np.float32)
    assert deviation_of(moved_NC, reference_NC).tolist() == pytest.approx([0.5, 2.0], rel=1e-4)


def test_the_largest_difference_of_all_frames_counts_four_times() -> None:
    teacher = NullTeacher(TeacherRequest(name="null"))
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (1, size, 40, 3), np.uint8) for size in (30, 40, 50)]
    floor = measure_floor(teacher, frames)
    (largest,) = floor.measured.values()
    alone = [measure_floor(teacher, [frame]).measured for frame in frames]
    assert largest == max(value for found in alone for value in found.values())
    assert 0 < largest < 1e-3
    assert floor.allowed == MARGIN * largest
    assert NoiseFloor({}).allowed == 0


def test_one_in_a_thousand_pixel_values_is_rounded_differently() -> None:
    frames_NHWC = np.random.default_rng(0).integers(1, 255, (2, 50, 40, 3), np.uint8)
    changed_NHWC = pixels_rounded(frames_NHWC)
    difference = changed_NHWC.astype(int) - frames_NHWC
    assert (np.abs(difference) == 1).sum() == 12
    assert np.abs(difference).max() == 1
    assert (pixels_rounded(frames_NHWC) == changed_NHWC).all()
