"""Frames that become rows: exact counts and times, however the video is cut into blocks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.video.sampling import Sampler, count_rows
from distinit.schemas.video import SamplingConfig

TICK = Fraction(1, 12800)  # 25 fps: 512 ticks per frame
steps = st.lists(st.integers(0, 5000), max_size=120)
rates = st.sampled_from(["0.3", "1", "2", "12", "23.976", "29.97", "30", "1000", "1000000"])
clocks = st.sampled_from([Fraction(1, 1000), Fraction(1, 90000), Fraction(1, 30), TICK])


def by_fps(fps: float) -> SamplingConfig:
    return SamplingConfig(mode="fps", fps=fps)


def by_count(count: int) -> SamplingConfig:
    return SamplingConfig(mode="per_video", per_video=count)


def picked(
    config: SamplingConfig,
    pts: list[int],
    time_base: Fraction = TICK,
    frame_count: int | None = None,
    block: int = 10**9,
) -> list[int]:
    sampler = Sampler(config, len(pts) if frame_count is None else frame_count)
    found: list[int] = []
    for start in range(0, len(pts), block):
        found += sampler.pick(np.array(pts[start : start + block], np.int64), time_base).tolist()
    return found


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (SamplingConfig(), list(range(10))),
        (SamplingConfig(mode="stride", stride=4), [0, 4, 8]),
        (by_fps(10.0), [0, 3, 5, 8]),
        (by_fps(25.0), list(range(10))),
        (by_fps(30.0), list(range(10))),
        (by_count(1), [5]),
        (by_count(3), [1, 5, 8]),
        (by_count(20), list(range(10))),
    ],
)
def test_ten_frames_of_a_steady_video(sampling: SamplingConfig, expected: list[int]) -> None:
    assert picked(sampling, [512 * i for i in range(10)]) == expected


@given(st.integers(1, 400), st.integers(1, 60))
def test_k_rows_per_video_are_evenly_spaced(frames: int, count: int) -> None:
    found = picked(by_count(count), list(range(frames)))
    assert len(found) == min(count, frames)
    spacing = np.diff(found)
    assert len(spacing) == 0 or spacing.max() - spacing.min() <= 1
    assert len(found) == 0 or abs(found[0] - (frames - 1 - found[-1])) <= 1


@given(
    st.one_of(
        st.builds(by_fps, rates.map(float)),
        st.builds(by_count, st.integers(1, 20)),
        st.builds(lambda n: SamplingConfig(mode="stride", stride=n), st.integers(1, 9)),
        st.just(SamplingConfig()),
    ),
    st.lists(st.integers(-3000, 5000), max_size=120),  # times may run backwards
    clocks,
    st.integers(1, 40),
)
def test_cuts_between_blocks_do_not_change_the_selection(
    sampling: SamplingConfig, intervals: list[int], time_base: Fraction, block: int
) -> None:
    pts = np.cumsum([0, *intervals]).tolist()
    whole = picked(sampling, pts, time_base)
    assert picked(sampling, pts, time_base, block=block) == whole
    assert count_rows(sampling, np.array(pts), time_base) == len(whole)


@given(rates, steps, clocks, st.integers(-(10**12), 10**12))
def test_each_slot_gives_its_first_frame(
    rate: str, intervals: list[int], time_base: Fraction, start: int
) -> None:
    pts = [start, *(start + np.cumsum(intervals)).tolist()]
    found = picked(by_fps(float(rate)), pts, time_base)
    slot_ticks = 1 / (Fraction(rate) * time_base)
    slots = [_slot(time - start, slot_ticks) for time in pts]
    assert found == [i for i in range(len(pts)) if i == 0 or slots[i] > slots[i - 1]]
    # So successive rows are closer than a slot only by rounding to the clock.
    for first, third in zip(found, found[2:], strict=False):
        assert pts[third] - pts[first] > slot_ticks - 1


def _slot(ticks: int, slot_ticks: Fraction) -> int:
    """The last slot whose start, rounded down to the clock, is not after ``ticks``; by search."""
    slot = int(ticks / slot_ticks)
    while int((slot + 1) * slot_ticks) <= ticks:
        slot += 1
    return slot


@given(st.integers(0, 999), st.sampled_from([24, 25, 30, 50, 60]))
def test_a_millisecond_clock_loses_no_frame_at_the_rate_of_the_source(phase: int, fps: int) -> None:
    pts = [round(Fraction(phase, 1000) + Fraction(1000 * i, fps)) for i in range(300)]
    assert picked(by_fps(float(fps)), pts, Fraction(1, 1000)) == list(range(300))


def test_a_pause_and_a_slow_part_give_the_frames_they_have() -> None:
    pts = [*range(0, 1000, 33), *range(60_000, 63_000, 500)]  # 30 fps, a pause, 2 fps
    found = picked(by_fps(4.0), pts, Fraction(1, 1000))
    assert [pts[i] for i in found] == [0, 264, 528, 759, *range(60_000, 63_000, 500)]


def test_slots_restart_after_a_joint_but_not_after_jitter() -> None:
    joined = [*range(0, 100, 4), *range(0, 100, 4)]
    assert picked(by_fps(1.0), joined, Fraction(1, 25)) == [0, 7, 13, 19, 25, 32, 38, 44]
    jitter = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9]
    assert picked(by_fps(5.0), jitter, Fraction(1, 25)) == [0, 4]


def test_a_rate_is_the_decimal_number_of_the_configuration() -> None:
    # 0.1 is not a binary fraction; the next slot must still start after exactly ten seconds.
    assert picked(by_fps(0.1), [250 * i for i in range(1, 5)], Fraction(1, 25)) == [0, 1, 2, 3]
    assert picked(by_fps(0.1), [0, 249, 250, 499, 500], Fraction(1, 25)) == [0, 2, 4]


def test_rows_are_spread_over_the_given_frame_count() -> None:
    assert picked(by_count(5), list(range(20)), frame_count=200) == []
    assert picked(by_count(5), list(range(20)), frame_count=20) == [2, 6, 10, 14, 18]
    assert picked(by_count(5), [], frame_count=0) == []
