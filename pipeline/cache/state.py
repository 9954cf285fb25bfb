"""The state of a cache, derived from its commit records: they alone define what it contains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

from distinit.pipeline.cache.confidence import fidelity_report
from distinit.pipeline.cache.digest import content_digest, corpus_digest
from distinit.pipeline.cache.feature_fidelity import feature_fidelity_report
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import UnitPlan
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.tables import videos_table
from distinit.pipeline.units import unit_name
from distinit.schemas.derivation import Derivation
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import (
    CACHE_FORMAT_MINOR,
    CacheManifest,
    CorpusSummary,
    PlanSummary,
    RowSpace,
    TeacherSummary,
    UnitCommit,
    VideoOutcome,
    failed_outcome,
)
from distinit.schemas.output_reports import FeatureFidelityReport, FidelityReport
from distinit.schemas.teacher import LOSS_KEYS, TeacherRecord
from distinit.schemas.video import SamplingConfig

__all__ = [
    "CacheState",
    "CommitReader",
    "check_rows",
    "committed_units",
    "losses_of",
    "manifest_of",
    "read_state",
    "summary_of",
    "with_losses",
]

_NOT_HASHED = {
    **dict.fromkeys(LOSS_KEYS),
    "encoded_from": None,
    "format_minor": 0,
}


@dataclass(frozen=True)
class CacheState:
    """The plan, the teachers and every commit record of a cache. Treat it as immutable."""

    plan: UnitPlan
    records: Mapping[str, TeacherRecord]
    commits: Mapping[str, Mapping[int, UnitCommit]]

    @cached_property
    def unit_rows(self) -> dict[int, int]:
        """Used rows of each unit that some teacher has committed."""
        return {u: c.rows for commits in self.commits.values() for u, c in commits.items()}

    @cached_property
    def outcomes(self) -> dict[str, VideoOutcome]:
        """Outcome of each video whose latest planned rows are committed.

        A video is in the cache for all of its teachers or for none: if a later teacher has no
        usable output for it, it has failed, even though the others have rows of it.
        """
        refused = {
            video_id: failed_outcome(video_id, reason)
            for commits in self.commits.values()
            for commit in commits.values()
            for video_id, reason in commit.refused.items()
        }
        return {v: refused.get(v, outcome) for v, outcome in self.decoded.items()}

    @cached_property
    def decoded(self) -> dict[str, VideoOutcome]:
        """``outcomes`` before later teachers: videos that are "ok" here have rows."""
        found: dict[tuple[int, str], VideoOutcome] = {}
        for commits in self.commits.values():
            for unit, commit in commits.items():
                found |= {(unit, outcome.video_id): outcome for outcome in commit.videos}
        keys = {v: (self.plan.last_unit(entry), v) for v, entry in self.plan.latest.items()}
        return {video_id: found[key] for video_id, key in keys.items() if key in found}

    @property
    def corpus_outcomes(self) -> dict[str, VideoOutcome]:
        """``outcomes`` of the videos in the corpus; the others are not used in training."""
        latest = self.plan.latest
        return {v: o for v, o in self.outcomes.items() if latest[v].in_corpus}

    @property
    def damage(self) -> dict[str, VideoOutcome]:
        """Path -> outcome, for videos that are in the cache although they are damaged."""
        found = sorted(self.corpus_outcomes.items())
        return {self.plan.latest[v].path: o for v, o in found if o.status == "ok" and o.damage}

    @property
    def unanswered(self) -> frozenset[str]:
        """Videos that some teachers have seen and others have not."""
        commits = (c for of_teacher in self.commits.values() for c in of_teacher.values())
        return frozenset(video_id for commit in commits for video_id in commit.unanswered)

    def unanswered_units(self, video_ids: Collection[str]) -> set[tuple[str, int]]:
        """Pairs (teacher, unit) where the teacher has not seen at least one of these videos."""
        return {
            (name, unit)
            for name, commits in self.commits.items()
            for unit, commit in commits.items()
            if any(video_id in video_ids for video_id in commit.unanswered)
        }

    @cached_property
    def lacking(self) -> dict[str, int]:
        """Teacher -> number of units that are not committed, or lack videos of the corpus."""
        present = {v for v, entry in self.plan.latest.items() if entry.in_corpus}
        lacking = {name: self.plan.units - len(c) for name, c in self.commits.items()}
        for name, _ in self.unanswered_units(present):
            lacking[name] += 1
        return {name: count for name, count in lacking.items() if count}

    @property
    def waiting(self) -> int:
        """Number of videos without an outcome, or that wait for more rows."""
        decided = [v for v, outcome in self.outcomes.items() if outcome.status != "spilled"]
        return len(self.plan.latest) - len(decided)

    @property
    def complete(self) -> bool:
        """Whether every unit of every teacher is committed and no video waits for rows."""
        return bool(self.commits) and not self.lacking and self.waiting == 0

    def content_digest(
        self, sampling: SamplingConfig, teachers: Collection[str] | None = None
    ) -> str:
        """See digest.content_digest; ``teachers`` limits it to some of the teachers."""
        contents = {
            name: (
                record.fingerprint,
                record.encoding,
                {u: c.content_sha256 for u, c in self.commits[name].items()},
            )
            for name, record in self.records.items()
            if teachers is None or name in teachers
        }
        videos = videos_table(self.plan, self.outcomes).to_pylist()
        return content_digest(sampling, self.plan.capacity, videos, contents)


@dataclass(slots=True)
class CommitReader:
    """Reads commit records and keeps them in memory until their files change, or ``clear``."""

    layout: CacheLayout
    _read: dict[tuple[str, int], tuple[tuple[int, ...], UnitCommit]] = field(default_factory=dict)

    def __call__(self, record: TeacherRecord, unit: int) -> UnitCommit:
        """As ``records.read_commit``."""
        stamp: tuple[int, ...] = ()
        with contextlib.suppress(OSError):  # read_commit below raises the proper error
            stat = self.layout.commit(record.id, unit).stat()
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        kept = self._read.get((record.id, unit))
        if kept is not None and kept[0] == stamp:
            return kept[1]
        commit = read_commit(self.layout, record, unit)
        self._read[record.id, unit] = stamp, commit
        return commit

    def clear(self) -> None:
        """Free the memory of all records: about a kilobyte per video."""
        self._read.clear()


def read_state(
    layout: CacheLayout,
    plan: UnitPlan,
    records: Mapping[str, TeacherRecord],
    read: Callable[[TeacherRecord, int], UnitCommit] | None = None,
) -> CacheState:
    """Read all commit records, through ``read`` if given.

    Raises CacheCorruptError if one is damaged.
    """
    read = read or partial(read_commit, layout)
    commits = {
        teacher_id: {
            unit: read(record, unit) for unit in committed_units(layout, teacher_id, plan.units)
        }
        for teacher_id, record in records.items()
    }
    state = CacheState(plan, records, commits)
    rows = state.unit_rows
    for teacher_id, of_teacher in commits.items():
        for unit, commit in of_teacher.items():
            check_rows(teacher_id, commit, rows[unit], plan.capacity)
    return state


def committed_units(layout: CacheLayout, teacher_id: str, planned: int) -> list[int]:
    """Units that a teacher has committed, ascending.

    Raises CacheCorruptError if one is not below ``planned``, the number of planned units.
    """
    units = sorted(layout.committed_units(teacher_id))
    if units and units[-1] >= planned:
        raise CacheCorruptError(
            f"teacher {teacher_id} has a commit of a unit that is not planned",
            expected=f"units below {planned}",
            found=unit_name(units[-1]),
            remedy="restore the cache from a copy",
        )
    return units


def check_rows(teacher_id: str, commit: UnitCommit, rows: int, capacity: int) -> None:
    """Raise CacheCorruptError unless a commit has as many ``rows`` as those of other teachers."""
    if commit.rows != rows or commit.rows > capacity:
        raise CacheCorruptError(
            f"the teachers have different numbers of rows in {unit_name(commit.unit)}",
            expected=f"{rows} rows, at most {capacity}",
            found=f"{commit.rows} rows of {teacher_id}",
            remedy="run `distinit cache verify` on this cache",
        )


def summary_of(record: TeacherRecord, units_committed: int) -> TeacherSummary:
    """The manifest entry of a teacher."""
    return TeacherSummary(
        fingerprint=record.fingerprint,
        record_sha256=record.model_copy(update=_NOT_HASHED).record_digest(),
        classes=record.identity.classes,
        label_space=record.identity.label_space,
        target=record.identity.target,
        encoding=record.encoding,
        units_committed=units_committed,
    )


type LossReport = FidelityReport | FeatureFidelityReport


def with_losses(record: TeacherRecord, commits: Mapping[int, UnitCommit]) -> TeacherRecord:
    """``record`` with what its commits say about encoding and arithmetic."""
    losses = losses_of(commits)
    newer = losses["feature_fidelity"] or losses["feature_precision_loss"]
    minor = CACHE_FORMAT_MINOR if newer else record.format_minor
    return record.model_copy(update={**losses, "format_minor": minor})


def losses_of(commits: Mapping[int, UnitCommit]) -> dict[str, LossReport | None]:
    """The fields of a teacher's record that are merged from its commits, by unit."""
    ordered = [commit for _, commit in sorted(commits.items())]
    return {
        "fidelity": fidelity_report(c.fidelity for c in ordered if c.fidelity),
        "precision_loss": fidelity_report(c.precision_loss for c in ordered if c.precision_loss),
        "feature_fidelity": feature_fidelity_report(
            c.feature_fidelity for c in ordered if c.feature_fidelity
        ),
        "feature_precision_loss": feature_fidelity_report(
            c.feature_precision_loss for c in ordered if c.feature_precision_loss
        ),
    }


def manifest_of(
    state: CacheState,
    sampling: SamplingConfig,
    plan: PlanSummary,
    *,
    complete: bool,
    derived_from: Derivation | None,
) -> CacheManifest:
    """The manifest of a cache in this state."""
    outcomes = state.corpus_outcomes.values()
    videos = state.plan.latest.values()
    present = sum(video.in_corpus for video in videos)
    return CacheManifest(
        format_minor=CACHE_FORMAT_MINOR,
        corpus=CorpusSummary(
            digest=corpus_digest(video.digest for video in videos),
            videos=present,
            failed=sum(o.status == "failed" for o in outcomes),
            damaged=sum(o.is_damaged for o in outcomes),
            frames=sum(o.frame_count for o in outcomes if o.status == "ok"),
            gone=len(videos) - present,
        ),
        sampling=sampling,
        row_space=RowSpace(
            capacity=state.plan.capacity,
            units=state.plan.units,
            rows=sum(state.unit_rows.values()),
        ),
        plan=plan,
        teachers={
            name: summary_of(record, len(state.commits[name]))
            for name, record in state.records.items()
        },
        complete=complete,
        content_digest=state.content_digest(sampling) if complete else "",
        derived_from=derived_from,
    )
