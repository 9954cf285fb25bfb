"""The unit group that a worker writes: its videos and rows, and what other teachers have of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import PlannedRows, UnitGroup
from distinit.schemas.manifest import FileEntry, UnitCommit, VideoOutcome
from distinit.schemas.teacher import TeacherRecord

__all__ = ["GroupSpec"]


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """All that a worker needs to write one unit group. Picklable.

    ``fence``: token of the run that the group belongs to; see ``fence.behind_fence``.
    ``committed_outcomes``: outcomes of the group's videos in the commit of another teacher.
    Decoding must then give exactly the same frames. Empty if these teachers are the first.
    ``committed_frames``: the frames table of each unit in that commit.
    ``cannot_spill``: videos that fail if they have more rows than reserved: they spilled before.
    ``superseded``: videos that have been given other rows since; their rows here stay unused.
    ``gone``: videos of the group that are no longer in the corpus.
    """

    root: Path
    capacity: int
    group: UnitGroup
    teachers: tuple[TeacherRecord, ...]
    fence: str
    committed_outcomes: tuple[VideoOutcome, ...] = ()
    cannot_spill: frozenset[str] = frozenset()
    committed_frames: Mapping[int, FileEntry] = field(default_factory=dict)
    superseded: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()

    def with_committed(self, commits: Mapping[int, UnitCommit]) -> GroupSpec:
        """The same group with the videos and frames that another teacher has committed."""
        layout = CacheLayout(self.root)
        names = {unit: layout.relative(layout.frames(unit)) for unit in commits}
        return replace(
            self,
            committed_outcomes=tuple(o for commit in commits.values() for o in commit.videos),
            committed_frames={unit: commits[unit].files[name] for unit, name in names.items()},
        )

    @property
    def videos(self) -> tuple[PlannedRows, ...]:
        """The videos to decode, in row order: those that exist and have rows here."""
        return tuple(v for v in self._with_rows if v.video_id not in self.gone)

    @property
    def unanswered(self) -> tuple[PlannedRows, ...]:
        """Videos that are gone but have rows of other teachers: these teachers never see them."""
        return tuple(
            v for v in self._with_rows if self.committed_outcomes and v.video_id in self.gone
        )

    @property
    def _with_rows(self) -> tuple[PlannedRows, ...]:
        if not self.committed_outcomes:
            return tuple(v for v in self.group.videos if v.video_id not in self.superseded)
        decoded = {
            outcome.video_id for outcome in self.committed_outcomes if outcome.status == "ok"
        }
        return tuple(video for video in self.group.videos if video.video_id in decoded)
