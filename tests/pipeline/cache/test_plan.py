"""Row maths of the plan: nothing overlaps, nothing is lost, order does not matter."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import pytest
from helpers.caches import planned_video
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.cache.plan import (
    PlannedVideo,
    choose_capacity,
    extend_plan,
    groups_of_entries,
    plan_units,
)
from distinit.schemas.errors import CacheCorruptError, ConfigError


def videos_of(rows: list[int], salt: str = "") -> list[PlannedVideo]:
    digests = [hashlib.sha256(f"{salt}{i}".encode()).hexdigest() for i in range(len(rows))]
    return [
        planned_video(d, f"{i}.mp4", n) for i, (d, n) in enumerate(zip(digests, rows, strict=True))
    ]


corpora = st.lists(st.integers(0, 300), max_size=40)
capacities = st.sampled_from([64, 128, 192])


@given(corpora, capacities, st.randoms(use_true_random=False))
def test_plan_covers_every_row_once_in_any_order(
    rows: list[int], capacity: int, rng: random.Random
) -> None:
    videos = videos_of(rows)
    plan = plan_units(videos, capacity)
    shuffled = list(videos)
    rng.shuffle(shuffled)
    assert plan_units(shuffled, capacity) == plan
    taken: set[int] = set()
    for entry in plan.entries:
        reserved = set(range(entry.first_row, entry.first_row + entry.reserved_rows))
        assert not taken & reserved
        taken |= reserved
    assert len(taken) == sum(rows)
    assert {e.video_id: e.reserved_rows for e in plan.entries} == {
        v.file.video_id: v.rows for v in videos
    }


@given(corpora, capacities)
def test_tasks_are_consecutive_and_long_videos_stand_alone(rows: list[int], capacity: int) -> None:
    plan = plan_units(videos_of(rows), capacity)
    unit = 0
    for task in plan.groups:
        assert task.first_unit == unit
        unit += task.units
        for video in task.videos:
            assert video.first_row // capacity >= task.first_unit
            assert plan.last_unit(video) in task.unit_range
        if task.units > 1:
            (video,) = task.videos
            assert video.first_row == task.first_unit * capacity
            assert task.units == -(-video.reserved_rows // capacity)
        else:
            assert sum(video.reserved_rows for video in task.videos) <= capacity
    assert plan.units == unit


@given(corpora, corpora)
def test_extending_moves_nothing_and_keeps_the_digest(rows: list[int], more: list[int]) -> None:
    plan = plan_units(videos_of(rows), 64)
    longer = extend_plan(plan, videos_of(more, "more"))
    assert longer.groups[: len(plan.groups)] == plan.groups
    assert all(task.first_unit >= plan.units for task in longer.groups[len(plan.groups) :])
    assert longer.digest == plan.digest
    assert len(longer.entries) == len(rows) + len(more)


def test_a_later_entry_supersedes_an_earlier_one() -> None:
    (video,) = videos_of([10])
    longer = extend_plan(plan_units([video], 64), [video])
    assert [entry.first_row for entry in longer.entries] == [0, 64]
    assert longer.latest[video.file.video_id].first_row == 64


def test_digest_depends_on_rows_and_capacity_not_on_paths() -> None:
    a = plan_units(videos_of([10, 20]), 64)
    moved = [
        replace(v, file=replace(v.file, path="else/" + v.file.path, size_bytes=99, mtime_ns=7))
        for v in videos_of([10, 20])
    ]
    assert plan_units(moved, 64).digest == a.digest
    assert plan_units(videos_of([10, 21]), 64).digest != a.digest
    assert plan_units(videos_of([10, 20]), 128).digest != a.digest


@pytest.mark.parametrize(
    ("rows", "capacity"),
    [
        (0, 1024),
        (1024 * 64, 1024),
        (1024 * 64 + 1, 1088),
        (5184 * 64, 5184),
        (10**9, 32768),
    ],
)
def test_choose_capacity(rows: int, capacity: int) -> None:
    assert choose_capacity(rows) == capacity


@pytest.mark.parametrize("capacity", [0, 63, -64])
def test_capacity_is_a_multiple_of_64(capacity: int) -> None:
    with pytest.raises(ConfigError, match="unit size"):
        plan_units(videos_of([1]), capacity)


def test_one_id_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        plan_units(videos_of([1]) * 2, 64)


def test_overlapping_entries_are_refused() -> None:
    entries = plan_units(videos_of([10, 20]), 64).entries
    with pytest.raises(CacheCorruptError, match="contradicts itself"):
        groups_of_entries([entries[1], entries[0]], [0, 0], 64)
    with pytest.raises(CacheCorruptError, match="contradicts itself"):
        groups_of_entries(entries, [0, 2], 64)
