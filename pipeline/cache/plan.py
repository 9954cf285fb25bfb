"""Which rows of the cache each video gets. Pure: the same videos give the same plan.

Rows ``u*capacity .. (u+1)*capacity - 1`` are unit ``u``. Videos are laid out in the order of
their content digests; one that does not fit into the rest of a unit starts the next unit. A video
longer than a unit starts a new unit and spans consecutive ones, all in the same group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from distinit.schemas.base import sha256_of
from distinit.schemas.corpus import ProbeSummary, VideoFile
from distinit.schemas.errors import CacheCorruptError, ConfigError

__all__ = [
    "PlannedRows",
    "PlannedVideo",
    "UnitGroup",
    "UnitPlan",
    "choose_capacity",
    "extend_plan",
    "groups_of_entries",
    "plan_units",
]

_CAPACITY_STEP = 64  # capacities are multiples of it

_MIN_CAPACITY = 1_024
_MAX_CAPACITY = 32_768
_TARGET_UNITS = 64  # enough to keep a few machines busy and to lose little on a crash


@dataclass(frozen=True, slots=True)
class PlannedVideo:
    """A video and the number of ``rows`` to reserve for it, by its probe."""

    file: VideoFile
    probe: ProbeSummary
    rows: int

    def with_counts(self, frame_count: int, rows: int) -> PlannedVideo:
        """The same video, with the numbers of frames and rows that decoding found."""
        return PlannedVideo(self.file, replace(self.probe, frame_count=frame_count), rows)


@dataclass(frozen=True, slots=True)
class PlannedRows:
    """A video with its reserved rows ``first_row .. first_row + reserved_rows - 1``."""

    video: PlannedVideo
    first_row: int
    in_corpus: bool = True  # False: the corpus no longer has it; its rows stay where they are

    @property
    def video_id(self) -> str:
        return self.video.file.video_id

    @property
    def path(self) -> str:
        return self.video.file.path

    @property
    def digest(self) -> str:
        return self.video.file.digest

    @property
    def reserved_rows(self) -> int:
        return self.video.rows

    @property
    def last_row(self) -> int:
        """The last reserved row; ``first_row`` for a video without rows."""
        return self.first_row + max(self.reserved_rows, 1) - 1

    def with_file(self, file: VideoFile, *, in_corpus: bool) -> PlannedRows:
        """The same rows, with the current ``file`` of the video."""
        return replace(self, video=replace(self.video, file=file), in_corpus=in_corpus)


@dataclass(frozen=True, slots=True)
class UnitGroup:
    """Units that one worker writes together: ``first_unit .. first_unit + units - 1``."""

    first_unit: int
    units: int
    videos: tuple[PlannedRows, ...]

    @property
    def unit_range(self) -> range:
        return range(self.first_unit, self.first_unit + self.units)


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """All groups, in unit order. ``base_videos``: number of entries when the cache was created."""

    capacity: int
    groups: tuple[UnitGroup, ...]
    base_videos: int

    @property
    def units(self) -> int:
        return self.groups[-1].unit_range.stop if self.groups else 0

    @property
    def entries(self) -> tuple[PlannedRows, ...]:
        return tuple(video for group in self.groups for video in group.videos)

    @property
    def latest(self) -> dict[str, PlannedRows]:
        """The entry that counts for each video id: a later one supersedes an earlier one."""
        return {entry.video_id: entry for entry in self.entries}

    @property
    def digest(self) -> str:
        """sha256 over capacity and the first ``base_videos`` entries; growth does not change it."""
        base = self.entries[: self.base_videos]
        rows = [[v.video_id, v.digest, v.first_row, v.reserved_rows] for v in base]
        return sha256_of({"capacity": self.capacity, "videos": rows})

    def updated(self, latest: Mapping[str, PlannedRows]) -> UnitPlan:
        """The same rows, with the files and ``in_corpus`` of ``latest``, by video id."""

        def update(entry: PlannedRows) -> PlannedRows:
            new = latest[entry.video_id]
            return entry.with_file(new.video.file, in_corpus=new.in_corpus)

        groups = (replace(group, videos=tuple(map(update, group.videos))) for group in self.groups)
        return UnitPlan(self.capacity, tuple(groups), self.base_videos)

    def last_unit(self, video: PlannedRows) -> int:
        """The unit in which the reservation of ``video`` ends."""
        return video.last_row // self.capacity


def choose_capacity(total_rows: int) -> int:
    """Rows of one unit for a corpus of ``total_rows``: about 64 units, 1,024 .. 32,768 rows."""
    steps = -(-total_rows // (_TARGET_UNITS * _CAPACITY_STEP))
    return min(max(steps * _CAPACITY_STEP, _MIN_CAPACITY), _MAX_CAPACITY)


def plan_units(videos: Iterable[PlannedVideo], capacity: int, first_unit: int = 0) -> UnitPlan:
    """Lay out ``videos`` from ``first_unit`` on, in order of (digest, video_id).

    Raises ConfigError if capacity is not a positive multiple of 64 or a video id occurs twice.
    """
    if capacity <= 0 or capacity % _CAPACITY_STEP:
        raise ConfigError(
            "unusable unit size",
            expected=f"a multiple of {_CAPACITY_STEP} rows",
            found=capacity,
            remedy="set unit_rows to 1024 .. 32768, or leave it out",
        )
    ordered = sorted(videos, key=lambda v: (v.file.digest, v.file.video_id))
    ids = sorted(v.file.video_id for v in ordered)
    if twice := next((a for a, b in pairwise(ids) if a == b), None):
        raise ConfigError("a video id occurs twice in one plan", found=twice)
    groups: list[UnitGroup] = []
    unit, taken = first_unit, 0
    members: list[PlannedRows] = []
    for video in ordered:
        # A video without rows still needs a unit whose commit can carry its outcome.
        needed = max(video.rows, 1)
        if members and taken + needed > capacity:
            groups.append(_group(unit, members, capacity))
            unit, taken, members = groups[-1].unit_range.stop, 0, []
        members.append(PlannedRows(video, unit * capacity + taken))
        taken += video.rows
    if members:
        groups.append(_group(unit, members, capacity))
    return UnitPlan(capacity, tuple(groups), len(ordered))


def extend_plan(plan: UnitPlan, videos: Sequence[PlannedVideo]) -> UnitPlan:
    """``plan`` with ``videos`` in new units at its end; existing rows do not move.

    A video id that is already planned is superseded: its old rows stay unused.
    """
    more = plan_units(videos, plan.capacity, plan.units)
    return UnitPlan(plan.capacity, plan.groups + more.groups, plan.base_videos)


def _group(first_unit: int, videos: Sequence[PlannedRows], capacity: int) -> UnitGroup:
    last_row = max(video.last_row for video in videos)
    return UnitGroup(first_unit, last_row // capacity - first_unit + 1, tuple(videos))


def groups_of_entries(
    entries: Sequence[PlannedRows], group_of_entry: Sequence[int], capacity: int
) -> tuple[UnitGroup, ...]:
    """Groups from stored entries. Raises CacheCorruptError if rows overlap or units are skipped."""
    grouped: dict[int, list[PlannedRows]] = {}
    for entry, first_unit in zip(entries, group_of_entry, strict=True):
        grouped.setdefault(first_unit, []).append(entry)
    groups = tuple(_group(unit, grouped[unit], capacity) for unit in grouped)
    expected_unit = 0
    for group in groups:
        row = group.first_unit * capacity
        ordered = all(
            a.first_row + a.reserved_rows <= b.first_row for a, b in pairwise(group.videos)
        )
        fits = group.units == 1 or len(group.videos) == 1
        follows = group.first_unit == expected_unit and group.videos[0].first_row >= row
        if not (follows and ordered and fits):
            raise CacheCorruptError(
                "the plan of the cache contradicts itself",
                expected=f"rows in order, group at unit {expected_unit}",
                found=f"group at unit {group.first_unit}",
                remedy="restore plan.parquet from a copy of the cache",
            )
        expected_unit = group.unit_range.stop
    return groups
