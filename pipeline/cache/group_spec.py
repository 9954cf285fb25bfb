"""What a worker is told of one task: its videos and rows, and what others have made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distinit.pipeline.cache.plan import PlannedRows, UnitGroup
from distinit.schemas.manifest import FileEntry, VideoOutcome
from distinit.schemas.teacher import TeacherRecord

__all__ = ["GroupSpec"]


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """All that a worker needs to write one task. Picklable.

    ``fence``: token of the run that this task belongs to; see ``fence.behind_fence``.
    ``known``: what another teacher's commit says became of the videos of this task; then the
    frames are settled and this pass must meet the very same ones. Empty for a first pass.
    ``known_frames``: that commit's frames table of each unit.
    ``superseded``: videos that got other rows later; those of this task are theirs no more.
    ``gone``: videos of the task that the corpus no longer has.
    """

    root: Path
    capacity: int
    group: UnitGroup
    teachers: tuple[TeacherRecord, ...]
    fence: str
    known: tuple[VideoOutcome, ...] = ()
    cannot_spill: frozenset[str] = frozenset()
    known_frames: Mapping[int, FileEntry] = field(default_factory=dict)
    superseded: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()

    @property
    def videos(self) -> tuple[PlannedRows, ...]:
        """The videos to decode, in row order: without those that are gone or have no rows here."""
        return tuple(v for v in self._with_rows if v.video_id not in self.gone)

    @property
    def unanswered(self) -> tuple[PlannedRows, ...]:
        """Videos with rows of other teachers that are gone: these teachers never see them."""
        return tuple(v for v in self._with_rows if self.known and v.video_id in self.gone)

    @property
    def _with_rows(self) -> tuple[PlannedRows, ...]:
        if not self.known:
            return tuple(v for v in self.group.videos if v.video_id not in self.superseded)
        decoded = {outcome.video_id for outcome in self.known if outcome.status == "ok"}
        return tuple(video for video in self.group.videos if video.video_id in decoded)
