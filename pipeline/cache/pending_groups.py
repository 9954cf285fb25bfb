"""Which unit groups are still to be written, and what their workers need to know."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import UnitPlan
from distinit.pipeline.cache.state import CommitReader
from distinit.schemas.teacher import TeacherRecord

__all__ = ["pending_groups"]

_SPILLS_ALLOWED = 2


def pending_groups(
    layout: CacheLayout,
    plan: UnitPlan,
    records: Mapping[str, TeacherRecord],
    *,
    requested: Sequence[str],
    absent: Collection[str],
    fence: str,
    read: CommitReader,
) -> tuple[GroupSpec, ...]:
    """The unit groups that are missing for the ``requested`` teachers, in unit order.

    ``absent``: ids of the videos that this run cannot decode. ``read`` reads commit records.
    """
    committed = {name: layout.committed_units(name) for name in records}
    entries: dict[str, int] = {}
    latest = plan.latest
    specs = []
    for group in plan.groups:
        for video in group.videos:
            entries[video.video_id] = entries.get(video.video_id, 0) + 1
        done = [name for name, units in committed.items() if units.issuperset(group.unit_range)]
        missing = tuple(records[name] for name in requested if name not in done)
        if not missing:
            continue
        stuck = {v.video_id for v in group.videos if entries[v.video_id] > _SPILLS_ALLOWED}
        moved = {v.video_id for v in group.videos if latest[v.video_id] is not v}
        spec = GroupSpec(
            layout.root,
            plan.capacity,
            group,
            missing,
            fence,
            cannot_spill=frozenset(stuck),
            superseded=frozenset(moved),
            gone=frozenset(absent).intersection(v.video_id for v in group.videos),
        )
        commits = {u: read(records[done[0]], u) for u in group.unit_range if done}
        specs.append(spec.with_committed(commits) if done else spec)
    return tuple(specs)
