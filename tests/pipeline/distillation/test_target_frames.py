"""Each clip contains a frame with a target if its video has one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.target_frames import TargetFrames, start_with_target
from distinit.pipeline.training.sampling import clip_frames, random_clip_starts


@st.composite
def videos(draw: st.DrawFn) -> tuple[int, int, list[int]]:
    """(frames of the video, frames of the clip, frames with targets)."""
    count = draw(st.integers(1, 60))
    targets = draw(st.sets(st.integers(0, count - 1), min_size=1))
    return count, draw(st.integers(1, 40)), sorted(targets)


@given(video=videos(), uniform=st.floats(0, 1, exclude_max=True))
def test_starts_are_drawn_from_all_those_whose_clip_contains_a_target(
    video: tuple[int, int, list[int]], uniform: float
) -> None:
    count, frames, targets = video
    every = np.arange(max(1, count - frames + 1))
    clips = clip_frames(every, np.full(len(every), count), frames)
    allowed = every[np.isin(clips, targets).any(axis=1)]
    start = start_with_target(uniform, count, frames, np.array(targets))
    assert start == allowed[int(np.floor(uniform * len(allowed)))]


@given(
    count=st.integers(1, 60),
    frames=st.integers(1, 40),
    stride=st.integers(1, 40),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_starts_equal_random_clip_starts_if_every_clip_contains_a_target(
    count: int, frames: int, stride: int, uniform: float
) -> None:
    stride = min(stride, frames)
    start = start_with_target(uniform, count, frames, np.arange(0, count, stride))
    assert start == random_clip_starts(np.array([uniform]), np.array([count]), frames)[0]


def index_of(rows: list[list[int]], capacity: int) -> SimpleNamespace:
    """An index of videos in consecutive rows, each given by the frames of its rows."""
    counts = np.array([len(row) for row in rows], np.int64)
    first = np.cumsum(counts) - counts
    return SimpleNamespace(
        first_row=np.where(counts > 0, first, -1),
        row_count=counts,
        frame_index=np.array([frame for row in rows for frame in row], np.int32),
    )


def test_rows_of_units_that_are_not_written_do_not_count() -> None:
    # Rows 0-3 are unit 0, rows 4-7 unit 1.
    index = index_of([[0, 1, 2], [0, 5], [], [0, 1, 2]], 4)
    frames = TargetFrames(cast(Any, index), 4, np.array([True, False]))
    numbers = np.arange(4, dtype=np.int32)
    assert frames.any_of(numbers).tolist() == [True, True, False, False]
    # Only frame 0 of the second video has a target, in row 3: clips of 2 frames start at 0.
    uniform = np.linspace(0, 0.99, 7)
    starts = frames.starts(np.full(7, 1), np.full(7, 6), uniform, 2)
    assert starts.tolist() == [0] * 7
    whole = TargetFrames(cast(Any, index), 4, np.array([True, True]))
    assert whole.any_of(numbers).tolist() == [True, True, False, True]
    assert whole.starts(np.full(7, 1), np.full(7, 6), uniform, 2).tolist() == [0] * 4 + [4] * 3
    dense = whole.starts(np.zeros(7, np.int64), np.full(7, 3), uniform, 2)
    assert dense.tolist() == random_clip_starts(uniform, np.full(7, 3), 2).tolist()


def test_every_clip_of_a_strided_cache_has_a_target(stored: Path) -> None:
    cache = TargetCache.open(stored / "sparse")
    frames = TargetFrames(cache.index, 64, np.ones(1, np.bool_))
    numbers = np.flatnonzero(cache.index.row_count > 0)
    counts = {number: 9 * int(cache.index.row_count[number]) for number in numbers.tolist()}
    for number, count in counts.items():
        uniform = np.linspace(0, 0.999, 50)
        start = frames.starts(np.full(50, number), np.full(50, count), uniform, 3)
        clips = clip_frames(start, np.full(50, count), 3)
        assert (clips % 9 == 0).any(axis=1).all()
        assert (len(set(start.tolist())) > 1) == (count > 9)
