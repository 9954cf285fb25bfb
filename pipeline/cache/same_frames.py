"""Checks that a later teacher of a unit sees exactly the frames that the cache already has."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.tables import read_table
from distinit.pipeline.cache.unit import StagedUnit
from distinit.pipeline.records import file_entry
from distinit.pipeline.units import unit_name
from distinit.schemas.errors import CacheCorruptError, CacheMismatchError
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.tables import FRAMES_SCHEMA

__all__ = ["check_same_frames"]


def check_same_frames(
    spec: GroupSpec, outcomes: Mapping[str, VideoOutcome], staged: Mapping[int, StagedUnit]
) -> None:
    """Compare the videos and frames of this pass with the commits of another teacher.

    Args:
        spec: The unit group; without ``committed_outcomes`` there is nothing to compare with.
        outcomes: Outcomes of the decoded videos, by id.
        staged: The units of this pass, by number.

    Raises:
        CacheMismatchError: A video or a frame differs from the one in the cache.
        CacheCorruptError: The frames table in the cache is damaged.
    """
    if not spec.committed_outcomes:
        return
    known = {outcome.video_id: outcome for outcome in spec.committed_outcomes}
    for video_id, outcome in outcomes.items():
        earlier = known[video_id]
        shape = (outcome.status, outcome.frame_count, outcome.width, outcome.height)
        if shape != (earlier.status, earlier.frame_count, earlier.width, earlier.height):
            raise _mismatch(video_id, earlier, outcome)
    for number, unit in staged.items():
        _check_frames(spec, number, unit)


def _check_frames(spec: GroupSpec, number: int, unit: StagedUnit) -> None:
    path, committed = CacheLayout(spec.root).frames(number), spec.committed_frames[number]
    found = file_entry(path) if path.is_file() else None
    if found != committed:
        raise CacheCorruptError(
            f"{path} is damaged",
            expected=f"{committed.size} bytes, sha256 {committed.sha256}",
            found=f"{found.size} bytes, sha256 {found.sha256}" if found else "no such file",
            remedy="add --repair to the same `distinit extract`",
        )
    stored = read_table(path, FRAMES_SCHEMA)
    if not stored.equals(unit.frames):
        raise CacheMismatchError(
            f"the frames of {unit_name(number)} differ from those that the other teachers saw",
            expected=_differences(stored, unit.frames),
            found=_differences(unit.frames, stored),
            remedy="use the same videos and the same ffmpeg as before, or a new cache",
        )


def _mismatch(video_id: str, earlier: VideoOutcome, now: VideoOutcome) -> CacheMismatchError:
    def describe(outcome: VideoOutcome) -> str:
        size = f"{outcome.frame_count} frames of {outcome.width}x{outcome.height}"
        return f"{outcome.status}, {size}" + (f" ({outcome.error})" if outcome.error else "")

    return CacheMismatchError(
        f"video {video_id} differs from the one that the other teachers of this cache saw",
        expected=describe(earlier),
        found=describe(now),
        remedy="use the same videos and the same ffmpeg as before, or a new cache",
    )


def _differences(table: pa.Table, other: pa.Table) -> str:
    """For a message: the first rows of ``table`` that are not in ``other``."""
    other_rows = {tuple(row.values()) for row in other.to_pylist()}
    rows = [row for row in table.to_pylist() if tuple(row.values()) not in other_rows]
    shown = ", ".join(
        f"row {r['row']}: {r['video_id']}[{r['frame_index']}] pts {r['pts']} ({r['time_base']}) "
        f"hash {r['perceptual_hash']:016x}"
        for r in rows[:3]
    )
    return f"{len(rows)} differing rows" + (f": {shown}" if shown else "")
