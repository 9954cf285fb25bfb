"""The driver's side of a target cache: create it, say what is to do, close it with a digest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from distinit.pipeline.cache.arrays import write_array_metadata
from distinit.pipeline.cache.cards import published_files, write_cards
from distinit.pipeline.cache.confidence import fidelity_report
from distinit.pipeline.cache.digest import corpus_digest
from distinit.pipeline.cache.encoding import array_specs, check_encoding
from distinit.pipeline.cache.fence import lower_fence, raise_fence
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.lock import CacheLock
from distinit.pipeline.cache.plan import (
    PlannedRows,
    PlannedVideo,
    UnitPlan,
    choose_capacity,
    extend_plan,
    plan_units,
    sampled_indices,
)
from distinit.pipeline.cache.records import (
    read_commit,
    read_manifest,
    read_teacher,
)
from distinit.pipeline.cache.state import CacheState, read_state, summary_of
from distinit.pipeline.cache.tables import read_plan, videos_table, write_plan, write_table
from distinit.pipeline.cache.task import TaskSpec
from distinit.pipeline.records import write_record
from distinit.pipeline.storage import PARTIAL_SUFFIX, refuse_links
from distinit.schemas.base import differences
from distinit.schemas.errors import CacheCorruptError, CacheError, CacheMismatchError
from distinit.schemas.manifest import CacheManifest, CorpusSummary, RowSpace, VideoOutcome
from distinit.schemas.teacher import TeacherRecord, identity_differences
from distinit.schemas.video import SamplingConfig

__all__ = ["CacheWriter", "read_cache_plan"]

_BEFORE_MANIFEST = {".lock", ".fence", ".staging", "plan.parquet", "plan.parquet.partial"}
_SPILLS_ALLOWED = 2


def read_cache_plan(root: Path) -> UnitPlan | None:
    """The stored plan of a cache, None where there is no cache yet."""
    layout = CacheLayout(root)
    return read_plan(layout.plan) if layout.manifest.exists() else None


class CacheWriter:
    """One open cache, locked against other writers until ``close``; a context manager.

    The commit records are the only memory: every method reads what is on disk, so a run that
    was killed at any point continues from there.
    """

    def __init__(
        self,
        layout: CacheLayout,
        lock: CacheLock,
        fence: str,
        plan: UnitPlan,
        manifest: CacheManifest,
        records: Mapping[str, TeacherRecord],
        wanted: Sequence[str],
    ) -> None:
        self.layout = layout
        self.plan = plan
        self.manifest = manifest
        self.records = dict(records)
        self._lock = lock
        self._fence = fence
        self._wanted = tuple(wanted)

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
        """Create a cache, or continue one: resume it, add videos to it, add teachers to it.

        Args:
            root: Folder of the cache.
            videos: Videos that the cache shall have. Those it has planned already keep their
                rows, whatever is said of them here; the others get units at its end.
            sampling: Which frames become rows; fixed when the cache is created.
            teachers: The teachers to run now, by id. Others in the cache stay as they are.
            unit_rows: Rows of a unit; None derives it from the corpus.

        Raises:
            CacheMismatchError: It was made with another sampling, unit size or teacher.
            CacheLockedError: Another process writes it.
            CacheError: The folder has content that is no cache, or holds links.
        """
        _check_teachers(teachers)
        layout = CacheLayout(root)
        refuse_links(root, CacheError)
        lock = CacheLock(layout.lock)
        lock.acquire()
        try:
            fence = raise_fence(layout.fence)
            if not layout.manifest.exists():
                _create(layout, videos, sampling, unit_rows)
            _sweep(layout)
            manifest = read_manifest(layout)
            _check_same(manifest, sampling, unit_rows)
            records = {name: read_teacher(layout, name) for name in manifest.teachers}
            for name in records.keys() & teachers.keys():
                _check_same_teacher(records[name], teachers[name])
            plan = read_plan(layout.plan)
            writer = cls(layout, lock, fence, plan, manifest, records, tuple(teachers))
            writer._add(videos, teachers)
        except BaseException:
            lower_fence(layout.fence)
            lock.release()
            raise
        return writer

    def pending_tasks(self) -> tuple[TaskSpec, ...]:
        """What is still to be written for the wanted teachers, in unit order."""
        committed = {name: self.layout.committed_units(name) for name in self.records}
        entries: dict[str, int] = {}
        specs = []
        for task in self.plan.tasks:
            for video in task.videos:
                entries[video.video_id] = entries.get(video.video_id, 0) + 1
            have = [name for name, units in committed.items() if units.issuperset(task.unit_range)]
            missing = tuple(self.records[name] for name in self._wanted if name not in have)
            if not missing:
                continue
            known: tuple[VideoOutcome, ...] = ()
            if have:
                record = self.records[have[0]]
                commits = [read_commit(self.layout, record, unit) for unit in task.unit_range]
                known = tuple(outcome for commit in commits for outcome in commit.videos)
            stuck = {v.video_id for v in task.videos if entries[v.video_id] > _SPILLS_ALLOWED}
            specs.append(
                TaskSpec(
                    self.layout.root,
                    self.plan.capacity,
                    task,
                    missing,
                    self._fence,
                    known,
                    frozenset(stuck),
                )
            )
        return tuple(specs)

    def state(self) -> CacheState:
        """All that is committed."""
        return read_state(self.layout, self.plan, self.records)

    def failed_videos(self) -> tuple[tuple[PlannedRows, VideoOutcome], ...]:
        """Videos that failed, with the outcome that says why; see ``replan``."""
        latest = self.plan.latest
        outcomes = self.state().outcomes
        return tuple((latest[v], o) for v, o in sorted(outcomes.items()) if o.status == "failed")

    def replan(self, videos: Sequence[PlannedVideo]) -> None:
        """Give decided videos (failed or spilled) fresh rows at the end.

        Raises CacheError for a video that is still pending or already stored.
        """
        outcomes = self.state().outcomes
        for video in videos:
            status = outcomes[video.video_id].status if video.video_id in outcomes else "pending"
            if status not in ("failed", "spilled"):
                raise CacheError(
                    f"video {video.video_id} cannot be planned again",
                    expected="a video that failed, or had more frames than planned",
                    found=status,
                )
        self._extend(videos)

    def replan_spilled(self) -> int:
        """Plan the videos that had more rows than reserved again, with their true count.

        Waits until nothing else is pending, so that the plan does not depend on the order in
        which tasks ended. Returns how many videos were planned; run ``pending_tasks`` then.
        """
        if self.pending_tasks():
            return 0
        latest = self.plan.latest
        spilled = [o for o in self.state().outcomes.values() if o.status == "spilled"]
        self._extend([self._with_true_count(latest[o.video_id], o) for o in spilled])
        return len(spilled)

    def _with_true_count(self, entry: PlannedRows, outcome: VideoOutcome) -> PlannedVideo:
        rows = len(sampled_indices(self.manifest.sampling, outcome.frame_count, entry.probed_fps))
        return PlannedVideo(
            video_id=entry.video_id,
            path=entry.path,
            digest=entry.digest,
            size_bytes=entry.size_bytes,
            mtime_ns=entry.mtime_ns,
            probed_frames=outcome.frame_count,
            rows=rows,
            probed_fps=entry.probed_fps,
        )

    def finalise(self) -> CacheManifest:
        """Write what is derived from the commits; the last step of every run.

        Complete caches get their content digest, card and checksums. With tasks pending the
        manifest stays incomplete, which readers refuse.
        """
        state = self.state()
        outcomes = state.outcomes
        write_table(videos_table(self.plan, outcomes), self.layout.videos)
        for name, record in self.records.items():
            sums = (c.fidelity for _, c in sorted(state.commits[name].items()) if c.fidelity)
            measured = record.model_copy(update={"fidelity": fidelity_report(sums)})
            write_record(measured, self.layout.teacher_record(name))
            self.records[name] = measured
        complete = state.complete
        self.manifest = self._manifest(state, complete)
        write_record(self.manifest, self.layout.manifest)
        if complete:
            shutil.rmtree(self.layout.staging, ignore_errors=True)
            write_cards(self.layout, self.manifest, state)
        return self.manifest

    def _manifest(self, state: CacheState, complete: bool) -> CacheManifest:
        outcomes = state.outcomes
        sampling = self.manifest.sampling
        return CacheManifest(
            corpus=CorpusSummary(
                digest=corpus_digest(v.digest for v in self.plan.latest.values()),
                videos=len(self.plan.latest),
                failed=sum(o.status == "failed" for o in outcomes.values()),
                frames=sum(o.frame_count for o in outcomes.values() if o.status == "ok"),
            ),
            sampling=sampling,
            row_space=RowSpace(
                capacity=self.plan.capacity,
                units=self.plan.units,
                rows=sum(state.unit_rows.values()),
            ),
            teachers={
                name: summary_of(record, len(state.commits[name]))
                for name, record in self.records.items()
            },
            complete=complete,
            content_digest=state.content_digest(sampling) if complete else "",
        )

    def _add(self, videos: Sequence[PlannedVideo], teachers: Mapping[str, TeacherRecord]) -> None:
        """Add unknown videos and teachers; repairs what a kill in mid-growth left behind."""
        planned = self.plan.latest
        self._extend([video for video in videos if video.video_id not in planned])
        fresh = {name: r for name, r in teachers.items() if name not in self.records}
        for name, record in fresh.items():
            check_encoding(record.identity, record.encoding)
            self.layout.teacher(name)
        if fresh or self.pending_tasks():
            self._mark_incomplete()
        for name, record in fresh.items():
            write_record(record, self.layout.teacher_record(name))
        self.records |= fresh
        self._size_arrays()
        if fresh or self.manifest.row_space.units != self.plan.units:
            self.manifest = self._manifest(self.state(), complete=False)
            write_record(self.manifest, self.layout.manifest)

    def _extend(self, videos: Sequence[PlannedVideo]) -> None:
        if not videos:
            return
        self._mark_incomplete()
        self.plan = extend_plan(self.plan, videos)
        write_plan(self.plan, self.layout.plan)
        self._size_arrays()

    def _mark_incomplete(self) -> None:
        """From here until ``finalise`` readers must not take the cache for finished."""
        if self.manifest.complete:
            self.manifest = self.manifest.model_copy(
                update={"complete": False, "content_digest": ""}
            )
            write_record(self.manifest, self.layout.manifest)
        self.layout.checksums.unlink(missing_ok=True)

    def _size_arrays(self) -> None:
        rows, capacity = self.plan.units * self.plan.capacity, self.plan.capacity
        for name, record in self.records.items():
            for spec in array_specs(record.encoding, record.identity.classes):
                write_array_metadata(self.layout.array(name, spec.name), spec, rows, capacity)

    def close(self) -> None:
        """Shut out workers that are still alive and give the lock back. Idempotent."""
        if self._fence:
            lower_fence(self.layout.fence)
            self._fence = ""
        self._lock.release()

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _create(
    layout: CacheLayout,
    videos: Sequence[PlannedVideo],
    sampling: SamplingConfig,
    unit_rows: int | None,
) -> None:
    """Persist the plan, then the manifest: from then on the folder is a cache."""
    strangers = {path.name for path in layout.root.iterdir()} - _BEFORE_MANIFEST
    if strangers:
        kind = CacheCorruptError if "teachers" in strangers else CacheError
        raise kind(
            f"{layout.root} has content but no manifest.json",
            expected="an empty folder or a target cache",
            found=", ".join(sorted(strangers)[:5]),
            remedy="choose another folder, or restore manifest.json from a copy of the cache",
        )
    capacity = unit_rows or choose_capacity(sum(video.rows for video in videos))
    plan = plan_units(videos, capacity)
    write_plan(plan, layout.plan)
    manifest = CacheManifest(
        corpus=CorpusSummary(
            digest=corpus_digest(v.digest for v in videos), videos=len(videos), failed=0, frames=0
        ),
        sampling=sampling,
        row_space=RowSpace(capacity=capacity, units=plan.units, rows=0),
        complete=False,
        content_digest="",
    )
    write_record(manifest, layout.manifest)


def _sweep(layout: CacheLayout) -> None:
    """Remove what a killed writer left half-written; the lock says that none is alive."""
    shutil.rmtree(layout.staging, ignore_errors=True)
    for name in published_files(layout):
        if name.endswith(PARTIAL_SUFFIX):
            (layout.root / name).unlink(missing_ok=True)


def _check_teachers(teachers: Mapping[str, TeacherRecord]) -> None:
    for name, record in teachers.items():
        if record.id != name or record.fingerprint != record.identity.fingerprint:
            raise CacheError(
                f"the record of teacher {name} does not match itself",
                expected=(name, record.identity.fingerprint),
                found=(record.id, record.fingerprint),
            )


def _check_same(manifest: CacheManifest, sampling: SamplingConfig, unit_rows: int | None) -> None:
    if manifest.sampling != sampling:
        raise CacheMismatchError(
            "the cache was made with another sampling",
            expected=manifest.sampling.model_dump(exclude_defaults=True) or "all frames",
            found=sampling.model_dump(exclude_defaults=True) or "all frames",
            remedy="use the sampling of the cache, or a new cache folder",
        )
    if unit_rows is not None and manifest.row_space.capacity != unit_rows:
        raise CacheMismatchError(
            "the cache was made with another unit size",
            expected=f"unit_rows {manifest.row_space.capacity}",
            found=f"unit_rows {unit_rows}",
            remedy="leave unit_rows out, or use a new cache folder",
        )


def _check_same_teacher(stored: TeacherRecord, asked: TeacherRecord) -> None:
    found = identity_differences(stored.identity, asked.identity)
    found += differences(
        *(record.model_dump(include={"encoding", "precision"}) for record in (stored, asked))
    )
    if found:
        raise CacheMismatchError(
            f"the cache has another teacher named {stored.id}",
            expected="the teacher that the cache was made with",
            found="\n".join(found),
            remedy="give the new teacher another id (--set teachers.0.id=NAME), or use a new "
            "cache folder",
        )
