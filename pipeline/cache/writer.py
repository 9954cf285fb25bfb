"""The driver's view of a cache: creates it, lists the pending work, completes it with a digest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distinit.pipeline.cache.arrays import write_array_metadata
from distinit.pipeline.cache.cards import write_cards
from distinit.pipeline.cache.copies import refuse_copy
from distinit.pipeline.cache.damage import find_damage, remove_commits, summaries_without
from distinit.pipeline.cache.digest import corpus_digest, plan_summary
from distinit.pipeline.cache.encoding import array_specs, check_encoding
from distinit.pipeline.cache.fence import lower_fence, raise_fence
from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.opening import (
    check_content,
    check_same_settings,
    check_same_teacher,
    check_teachers,
    check_writable,
    create_cache,
    open_plan,
    read_teachers,
    remove_leftovers,
)
from distinit.pipeline.cache.pending_groups import pending_groups
from distinit.pipeline.cache.plan import (
    PlannedRows,
    PlannedVideo,
    UnitPlan,
    extend_plan,
)
from distinit.pipeline.cache.records import read_manifest
from distinit.pipeline.cache.state import (
    CacheState,
    CommitReader,
    manifest_of,
    read_state,
    with_losses,
)
from distinit.pipeline.cache.statistics_update import update_statistics
from distinit.pipeline.cache.tables import plan_table, videos_table, write_table
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.progress import Progress
from distinit.pipeline.records import write_record
from distinit.pipeline.storage import refuse_links
from distinit.schemas.errors import CacheError
from distinit.schemas.manifest import CacheManifest, PlanSummary, VideoOutcome
from distinit.schemas.provenance import Provenance
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.video import SamplingConfig

__all__ = ["CacheWriter"]


class CacheWriter:
    """One open cache, locked against other writers until ``close``; a context manager.

    The commit records are the only state, so a run can resume after it was killed at any point.

    Attributes:
        repairs: What was damaged and has been rewritten or will be extracted again, one line each.
        outdated_signature: Whether the cache has a signature and was changed since it was opened.
    """

    def __init__(
        self,
        layout: CacheLayout,
        lock: WriterLock,
        fence: str,
        plan: UnitPlan,
        pinned: PlanSummary,
        manifest: CacheManifest,
        records: Mapping[str, TeacherRecord],
        requested: Sequence[str],
    ) -> None:
        self.layout = layout
        self.plan = plan
        self.manifest = manifest
        self.records = dict(records)
        self.repairs: tuple[str, ...] = ()
        self.outdated_signature = False
        self._read = CommitReader(layout)
        self._state: CacheState | None = None
        self._plan_summary = pinned
        self._lock = lock
        self._fence = fence
        self._requested = tuple(requested)
        self._absent: frozenset[str] = frozenset()

    @classmethod
    def create_or_open(
        cls,
        root: Path,
        *,
        videos: Sequence[PlannedVideo],
        sampling: SamplingConfig,
        teachers: Mapping[str, TeacherRecord],
        unit_rows: int | None = None,
    ) -> CacheWriter:
        """Create a cache or open one, to resume it or to add videos or teachers.

        Args:
            root: Folder of the cache.
            videos: Videos for the cache. Those that are already in its plan keep their rows,
                whatever their new probe says; the others get new units at its end.
            sampling: Which frames become rows; fixed when the cache is created.
            teachers: The teachers to run, by id. Others in the cache stay as they are.
            unit_rows: Rows per unit; None derives it from the corpus.

        Raises:
            CacheMismatchError: It was made with another sampling, unit size or teacher.
            CacheCorruptError: It is damaged and cannot be repaired from the videos.
            LockedError: Another process is writing it.
            CacheError: The folder contains other files, or links, or is a partial copy.
        """
        check_teachers(teachers)
        layout = CacheLayout(root)
        refuse_links(root, CacheError)
        refuse_copy(layout)
        lock = WriterLock(layout.lock)
        lock.acquire()
        try:
            fence = raise_fence(layout.fence)
            if not layout.manifest.exists():
                create_cache(layout, videos, sampling, unit_rows)
            manifest = read_manifest(layout)
            check_writable(layout, manifest)
            remove_leftovers(layout)
            check_same_settings(manifest, sampling, unit_rows)
            records, repairs = read_teachers(layout, manifest, teachers)
            for name in records.keys() & teachers.keys():
                check_same_teacher(records[name], teachers[name])
            plan, pinned, problem = open_plan(layout, manifest, videos)
            writer = cls(
                layout, lock, fence, plan, pinned, manifest, records, requested=tuple(teachers)
            )
            writer.repairs = tuple(repairs)
            if problem:
                writer._replace_plan(plan)
                writer.repairs += (f"{problem}; it was rebuilt from the videos",)
            writer._repair()
            writer._add(videos, teachers)
        except BaseException:
            lower_fence(layout.fence)
            lock.release()
            raise
        return writer

    def set_corpus(self, latest: Mapping[str, PlannedRows], absent: Collection[str]) -> None:
        """Record which planned videos exist in the corpus of this run, and where.

        Args:
            latest: Every planned video by id, with its current file and ``in_corpus``.
            absent: Ids of the videos that this run cannot decode.
        """
        self._absent = frozenset(absent)
        plan = self.plan.updated(latest)
        if plan != self.plan:
            self._mark_incomplete()
            self._replace_plan(plan)
        self._requeue_unanswered()

    def _requeue_unanswered(self) -> None:
        """Mark units for extraction that lack outputs for videos that were gone and came back."""
        returned = {v for v, entry in self.plan.latest.items() if entry.in_corpus} - self._absent
        due = self.state().unanswered_units(returned)
        if units := {(name, unit) for name, unit in due if name in self._requested}:
            self._mark_incomplete()
            self._update_manifest(teachers=summaries_without(self.manifest, units))
            remove_commits(self.layout, units)

    def pending_groups(self) -> tuple[GroupSpec, ...]:
        """The unit groups that are missing for the requested teachers, in unit order."""
        specs = pending_groups(
            self.layout,
            self.plan,
            self.records,
            requested=self._requested,
            absent=self._absent,
            fence=self._fence,
            read=self._read,
        )
        if specs:
            self._read.clear()  # workers need the memory
            self._state = None
        return specs

    def state(self) -> CacheState:
        """All that is committed. It is read again only after something has changed."""
        units = {name: self.layout.committed_units(name) for name in self.records}
        kept = self._state
        if (
            kept is None
            or kept.plan is not self.plan
            or kept.records != self.records
            or units != {name: frozenset(commits) for name, commits in kept.commits.items()}
        ):
            self._state = kept = read_state(self.layout, self.plan, dict(self.records), self._read)
        return kept

    def failed_videos(self) -> tuple[tuple[PlannedRows, VideoOutcome], ...]:
        """Videos of the corpus that failed, with the outcome that says why; see ``replan``."""
        latest = self.plan.latest
        outcomes = sorted(self.state().corpus_outcomes.items())
        return tuple((latest[v], o) for v, o in outcomes if o.status == "failed")

    def replan(self, videos: Sequence[PlannedVideo]) -> None:
        """Give videos that failed, spilled or were gone new rows at the end.

        Raises CacheError for a video that is still pending or already stored.
        """
        outcomes = self.state().decoded
        for video in videos:
            video_id = video.file.video_id
            status = outcomes[video_id].status if video_id in outcomes else "pending"
            if status not in ("failed", "spilled", "gone"):
                raise CacheError(
                    f"video {video_id} cannot be planned again",
                    expected="a video that failed, was gone, or had more frames than planned",
                    found=status,
                )
        self._extend(videos)

    def replan_spilled(self) -> int:
        """Plan the videos that had more rows than reserved again, with their true row count.

        Does nothing while other work is pending, so that the plan does not depend on the order
        in which groups finish. Returns how many videos were planned; then ``pending_groups`` has
        new groups.
        """
        if self.pending_groups():
            return 0
        latest = self.plan.latest
        spilled = [o for o in self.state().outcomes.values() if o.status == "spilled"]
        self._extend([latest[o.video_id].video.with_counts(o.frame_count, o.rows) for o in spilled])
        return len(spilled)

    def discard_statistics(self) -> None:
        """Remove the statistics of feature teachers; ``finalise`` computes them from the rows."""
        self._mark_incomplete()
        for name in self.records:
            self.layout.statistics(name).unlink(missing_ok=True)

    def finalise(self, progress: Progress | None = None) -> CacheManifest:
        """Write all files that are derived from the commits; the last step of every run.

        A complete cache gets its content digest, cards and checksums. While groups are pending,
        the manifest says that the cache is incomplete, and readers refuse it.
        """
        state = self.state()
        outcomes = state.outcomes
        write_table(videos_table(self.plan, outcomes), self.layout.videos)
        for name, record in self.records.items():
            measured = with_losses(record, state.commits[name])
            write_record(measured, self.layout.teacher_record(name))
            self.records[name] = measured
        self._state = state = replace(state, records=dict(self.records))
        if complete := state.complete:
            update_statistics(self.layout, state, progress)
        before, self.manifest = self.manifest, self._manifest(state, complete)
        check_content(self.layout, before, self.manifest)
        write_record(self.manifest, self.layout.manifest)
        if complete:
            remove_leftovers(self.layout)
            write_cards(self.layout, self.manifest, state)
        return self.manifest

    def describe(self, given: Provenance) -> None:
        """State where the cache comes from; what is not ``given`` stays. ``finalise`` follows."""
        provenance = given.over(self.manifest.provenance)
        if provenance != self.manifest.provenance:
            self._mark_incomplete()
            self._update_manifest(provenance=provenance)

    def _manifest(self, state: CacheState, complete: bool) -> CacheManifest:
        new = manifest_of(
            state,
            self.manifest.sampling,
            self._plan_summary,
            complete=complete,
            derived_from=self.manifest.derived_from,
        )
        return new.model_copy(update={"provenance": self.manifest.provenance})

    def _repair(self) -> None:
        """Mark units whose files differ from their commit, so that they are extracted again."""
        damage = find_damage(
            self.layout,
            self.plan,
            self.records,
            read=self._read,
            complete=self.manifest.complete,
        )
        if not damage:
            return
        units = {(found.teacher_id, found.unit) for found in damage}
        self._update_manifest(teachers=summaries_without(self.manifest, units))
        remove_commits(self.layout, units)
        remedies = {True: "it is extracted again", False: "name this teacher to extract it again"}
        self.repairs += tuple(
            f"{found}; {remedies[found.teacher_id in self._requested]}" for found in damage
        )

    def _add(self, videos: Sequence[PlannedVideo], teachers: Mapping[str, TeacherRecord]) -> None:
        """Add new videos and teachers; completes an addition that was interrupted."""
        planned = self.plan.latest
        self._extend([video for video in videos if video.file.video_id not in planned])
        added = {name: r for name, r in teachers.items() if name not in self.records}
        for name, record in added.items():
            check_encoding(record.identity, record.encoding)
            self.layout.teacher(name)
        if added or self.pending_groups():
            self._mark_incomplete()
        for name, record in added.items():
            write_record(record, self.layout.teacher_record(name))
        self.records |= added
        self._resize_arrays()
        if (
            added
            or self.manifest.plan != self._plan_summary
            or self.manifest.row_space.units != self.plan.units
        ):
            self.manifest = self._manifest(self.state(), complete=False)
            write_record(self.manifest, self.layout.manifest)

    def _extend(self, videos: Sequence[PlannedVideo]) -> None:
        if videos:
            self._mark_incomplete()
            self._replace_plan(extend_plan(self.plan, videos))

    def _replace_plan(self, plan: UnitPlan) -> None:
        """Replace the plan. The manifest names the old and the new one while it is replaced."""
        table = plan_table(plan)
        summary = plan_summary(table)
        announced = self.manifest.plan.model_copy(update={"next_digest": summary.digest})
        self._update_manifest(plan=announced)
        write_table(table, self.layout.plan)
        self.plan, self._plan_summary = plan, summary
        self._resize_arrays()
        latest = plan.latest.values()
        present = sum(entry.in_corpus for entry in latest)
        digest = corpus_digest(entry.digest for entry in latest)
        corpus = {"digest": digest, "videos": present, "gone": len(latest) - present}
        self._update_manifest(
            plan=summary,
            corpus=self.manifest.corpus.model_copy(update=corpus),
            row_space=self.manifest.row_space.model_copy(update={"units": plan.units}),
        )

    def _mark_incomplete(self) -> None:
        """Mark the cache as incomplete for readers, until ``finalise``."""
        if self.manifest.complete:
            state = self.state()
            if state.complete:
                check_content(self.layout, self.manifest, self._manifest(state, complete=True))
            self._update_manifest()
        self.layout.checksums.unlink(missing_ok=True)

    def _update_manifest(self, **fields: Any) -> None:
        """Write the manifest with changed ``fields``, as that of an incomplete cache."""
        unfinished = {"complete": False, "content_digest": ""}
        self.manifest = self.manifest.model_copy(update=fields | unfinished)
        write_record(self.manifest, self.layout.manifest)
        self.layout.checksums.unlink(missing_ok=True)
        self.outdated_signature = self.layout.signature.is_file()

    def _resize_arrays(self) -> None:
        rows, capacity = self.plan.units * self.plan.capacity, self.plan.capacity
        for name, record in self.records.items():
            for spec in array_specs(record.encoding, record.identity.classes):
                write_array_metadata(self.layout.array(name, spec.name), spec, rows, capacity)

    def close(self) -> None:
        """Stop workers that are still alive from committing; release the lock. Idempotent."""
        if self._fence:
            lower_fence(self.layout.fence)
            self._fence = ""
        self._lock.release()

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
