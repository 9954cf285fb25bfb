"""Checks a cache against its own records: finds flipped bits, and missing or extra files.

Shallow: all files exist with the recorded sizes, and the records agree. Deep: every byte is
hashed, every inner chunk's checksum is checked, the tables are recomputed from the targets, and
the content digest is recomputed from the values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from distinit.pipeline.cache.arrays import metadata_bytes
from distinit.pipeline.cache.cards import names_of_units, published_names
from distinit.pipeline.cache.encoding import ArraySpec, array_specs
from distinit.pipeline.cache.feature_moments import FeatureMoments, merged
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.opening import read_valid_plan
from distinit.pipeline.cache.plan import UnitPlan
from distinit.pipeline.cache.published import limit_bytes_of
from distinit.pipeline.cache.records import (
    expected_files,
    read_commit,
    read_manifest,
    read_teacher,
)
from distinit.pipeline.cache.state import CacheState, committed_units, summary_of
from distinit.pipeline.cache.statistics_check import (
    check_statistics,
    listed_statistics,
    measured_teachers,
)
from distinit.pipeline.cache.tree import Tree, leftovers, list_tree
from distinit.pipeline.cache.unit_check import UnitFindings, in_one_line
from distinit.pipeline.cache.unit_checks import check_units
from distinit.pipeline.cache.whole_check import (
    checksum_problems,
    listed_names,
    record_problems,
    row_problems,
    version_notes,
)
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.storage import read_bounded, sha256_file
from distinit.pipeline.units import unit_name
from distinit.schemas.errors import DistInitError
from distinit.schemas.manifest import CacheManifest, FileEntry, PlanSummary, UnitCommit
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.wording import one_line

__all__ = ["VerifyReport", "verify_cache"]

_MAX_METADATA_BYTES = 1 << 20  # a zarr.json takes about 1,200


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What verification found.

    Attributes:
        problems: One line per problem, safe to print; empty if the cache matches its records.
        notes: Observations that are not damage.
        damaged_units: Pairs (teacher, unit) that ``repair_cache`` can mark for extraction.
        content_digest: As recomputed from the records; "" if the cache is not complete.
        sha256: Digests of the files that were hashed, by name.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    damaged_units: tuple[tuple[str, int], ...]
    files: int
    rows: int
    bytes: int
    deep: bool
    complete: bool
    content_digest: str
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify_cache(
    root: Path,
    *,
    deep: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check a complete or incomplete cache; damage is reported, never raised.

    Args:
        root: Folder of the cache.
        deep: Read every byte; otherwise check only sizes and records.
        workers: Threads of a deep check, each of which checks one unit at a time; None: one per
            CPU core.
        progress: Shows the bytes that a deep check has read.
    """
    workers = workers or os.cpu_count() or 1
    layout = CacheLayout(Path(root).resolve())
    return _Verification(layout, deep, workers, progress or NullProgress()).run()


@dataclass
class _Verification:
    layout: CacheLayout
    deep: bool
    workers: int
    progress: Progress
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hashed: dict[str, str] = field(default_factory=dict)  # path -> sha256 of the file on disk
    damaged: set[str] = field(default_factory=set)  # files that differ from their commit
    damaged_units: set[tuple[str, int]] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)  # listed files of a newer minor version
    all_read: bool = True  # every record could be read

    def run(self) -> VerifyReport:
        tree = list_tree(self.layout)
        self.problems += [f"{name}: a link or a special file" for name in tree.special]
        manifest, state, digest = None, None, ""
        if tree.special:  # reading a pipe would block; a link may lead out of the cache
            self.notes.append("nothing was read; remove the links and special files first")
        else:
            manifest = self._attempt(partial(read_manifest, self.layout))
        if manifest is not None:
            problems, notes = leftovers(self.layout, tree, manifest.complete)
            self.problems += problems
            self.notes += notes
            state, digest = self._check_cache(tree, manifest)
        listed = [self.layout.checksums] if self.layout.checksums.is_file() else []
        files = [*(self.layout.root / name for name in tree.files), *listed]
        return VerifyReport(
            problems=tuple(one_line(text) for text in dict.fromkeys(self.problems)),
            notes=tuple(one_line(text) for text in self.notes),
            damaged_units=tuple(sorted(self.damaged_units)),
            files=len(files),
            rows=sum(state.unit_rows.values()) if state is not None else 0,
            bytes=sum(path.lstat().st_size for path in files),
            deep=self.deep,
            complete=manifest is not None and manifest.complete,
            content_digest=digest,
            sha256=self.hashed,
        )

    @contextmanager
    def _collect(self) -> Iterator[None]:
        """Record an error as a problem, so that one damaged part does not hide the others."""
        try:
            yield
        except DistInitError as error:
            self.problems.append(in_one_line(error))
        except OSError as error:
            self.problems.append(f"{error.filename}: {error.strerror}")

    def _attempt[T](self, read: Callable[[], T]) -> T | None:
        """The record that ``read`` returns; None, and a problem, if it fails."""
        with self._collect():
            return read()
        self.all_read = False
        return None

    def _check_cache(self, tree: Tree, manifest: CacheManifest) -> tuple[CacheState | None, str]:
        """The part of the state that can be read, and its content digest."""
        records = self._read_teachers(manifest)
        pair = self._attempt(partial(read_valid_plan, self.layout, manifest))
        if pair is None:
            return None, ""
        plan, pinned = pair
        state = self._read_state(manifest, plan, records)
        self._check_files(tree, manifest, state)
        if self.deep:
            complete = manifest.complete
            measured = measured_teachers(self.layout, state) if complete else frozenset[str]()
            moments = self._check_units(state, measured)
            if complete:
                self._check_statistics(state, moments)
        return state, self._check_whole(manifest, state, pinned)

    def _check_whole(self, manifest: CacheManifest, state: CacheState, pinned: PlanSummary) -> str:
        """Checks that need all records; returns the content digest."""
        if not manifest.complete:
            if self.layout.checksums.exists():
                self.problems.append("manifest-sha256.txt: exists although the cache is incomplete")
            return ""
        if not self.all_read:  # sums over all records are not known
            return ""
        statistics = listed_statistics(self.layout, state)
        published = {*published_names(self.layout, state), *statistics, *self.unknown}
        names = tuple(sorted(published))
        self.notes += version_notes(manifest, self.unknown)
        with self._collect():
            self.problems += checksum_problems(
                self.layout, names, self._hash_listed if self.deep else None, self.damaged
            )
        if not state.complete:
            self.problems.append("manifest.json: says complete, but videos or units are missing")
            return ""
        found, problems = record_problems(self.layout, manifest, state, pinned)
        self.problems += problems
        return found

    def _read_teachers(self, manifest: CacheManifest) -> dict[str, TeacherRecord]:
        records = {}
        for name, summary in manifest.teachers.items():
            record = self._attempt(partial(read_teacher, self.layout, name))
            if record is None:
                continue
            records[name] = record
            if summary_of(record, summary.units_committed) != summary:
                self.problems.append(f"teachers/{name}/teacher.json: differs from manifest.json")
        return records

    def _read_state(
        self, manifest: CacheManifest, plan: UnitPlan, records: dict[str, TeacherRecord]
    ) -> CacheState:
        """The commit records that can be read."""
        commits: dict[str, dict[int, UnitCommit]] = {}
        for name, record in records.items():
            commits[name] = {}
            units = self._attempt(partial(committed_units, self.layout, name, plan.units)) or []
            if manifest.complete:
                self._report_missing(name, set(range(plan.units)) - set(units))
            for unit in units:
                commit = self._attempt(partial(read_commit, self.layout, record, unit))
                if commit is None:
                    self.damaged_units.add((name, unit))
                else:
                    commits[name][unit] = commit
        return CacheState(plan, records, commits)

    def _report_missing(self, teacher_id: str, units: set[int]) -> None:
        for unit in sorted(units):
            name = self.layout.relative(self.layout.commit(teacher_id, unit))
            self.all_read = False
            self.damaged_units.add((teacher_id, unit))
            self.problems.append(f"{name}: missing")

    def _check_files(self, tree: Tree, manifest: CacheManifest, state: CacheState) -> None:
        """Every file of the records exists as it was committed, and there are no other files."""
        complete = manifest.complete
        expected = set(published_names(self.layout, state)) if complete else set()
        expected |= names_of_units(self.layout, state)
        expected |= listed_statistics(self.layout, state) if complete else set()
        present = set(tree.files)
        self.damaged |= expected - present
        self.problems += [f"{name}: missing" for name in sorted(expected - present)]
        if complete:
            listed = listed_names(self.layout) if manifest.is_newer else frozenset[str]()
            self.unknown = (present - expected) & listed
            extra = [
                name
                for name in sorted(present - expected - self.unknown)
                if not self._may_belong(name, state)
            ]
            self.problems += [f"{name}: not part of the cache, remove it" for name in extra]
        for name, record in state.records.items():
            for spec in array_specs(record.encoding, record.identity.classes) if complete else ():
                self._check_array(name, spec, state.plan)
        committed: dict[str, FileEntry] = {}
        for commits in state.commits.values():
            for commit in commits.values():
                for name, entry in commit.files.items():
                    if committed.setdefault(name, entry) != entry:
                        self.problems.append(f"{name}: two commit records disagree on it")
        if not self.deep:
            for name in sorted(committed.keys() - self.damaged):
                with self._collect():
                    self._check_size(name, committed[name])
        self._note_damaged_units(state)

    def _note_damaged_units(self, state: CacheState) -> None:
        """Every unit of which a file is damaged."""
        self.damaged_units |= {
            (teacher, unit)
            for teacher, commits in state.commits.items()
            for unit, commit in commits.items()
            if self.damaged & commit.files.keys()
        }

    def _may_belong(self, name: str, state: CacheState) -> bool:
        """Whether a file may belong to a teacher or unit whose record cannot be read."""
        teacher = name.split("/")[1] if name.startswith("teachers/") else ""
        if teacher and teacher not in state.records:
            return not self.all_read
        for lost, unit in self.damaged_units:
            record = state.records[lost]
            if name == self.layout.relative(self.layout.commit(lost, unit)):
                return True
            if name in expected_files(self.layout, record, unit, rows=1):
                return True
        return False

    def _check_array(self, teacher_id: str, spec: ArraySpec, plan: UnitPlan) -> None:
        """Compare zarr.json byte by byte: readers may interpret anything else differently."""
        path = self.layout.array_metadata(teacher_id, spec.name)
        name = self.layout.relative(path)
        if name in self.damaged:
            return
        with self._collect():
            rows = plan.units * plan.capacity
            if read_bounded(path, _MAX_METADATA_BYTES) != metadata_bytes(spec, rows, plan.capacity):
                self.problems.append(f"{name}: describes another array than the manifest")

    def _check_size(self, name: str, entry: FileEntry) -> None:
        size = (self.layout.root / name).lstat().st_size
        if size != entry.size:
            self.damaged.add(name)
            self.problems.append(f"{name}: {size} bytes, committed with {entry.size}")

    def _hash(self, name: str) -> str:
        if name not in self.hashed:
            self.hashed[name] = sha256_file(self.layout.root / name)
        return self.hashed[name]

    def _hash_listed(self, name: str) -> str:
        """As ``_hash``, for a file whose size no commit records; "" if it is too large."""
        size_bytes = (self.layout.root / name).lstat().st_size
        if name not in self.hashed and size_bytes > limit_bytes_of(name):
            return ""
        return self._hash(name)

    def _check_units(
        self, state: CacheState, measured: Collection[str]
    ) -> dict[str, FeatureMoments]:
        """Read all units, several at a time; what is reported does not depend on their order.

        Returns the moments of the features of the ``measured`` teachers.
        """
        total = {
            name: FeatureMoments.empty(state.records[name].identity.channels) for name in measured
        }
        rows_of_video: dict[str, int] = {}
        last_frame: dict[str, int] = {}
        absent = frozenset(self.damaged)
        for found in check_units(self.layout, state, absent, self.workers, self.progress, measured):
            self._take(found)
            for name, moments in found.moments.items():
                total[name] = merged(total[name], moments)
            self._count_rows(found, state, rows_of_video, last_frame)
        self._note_damaged_units(state)
        if not self.damaged_units:
            self.problems += row_problems(state, rows_of_video)
        return total

    def _check_statistics(self, state: CacheState, total: Mapping[str, FeatureMoments]) -> None:
        """Compare the statistics of undamaged feature teachers with those of their rows."""
        damaged = {name for name, _ in self.damaged_units}
        for name in sorted(state.records.keys() - damaged):
            with self._collect():
                problems, notes = check_statistics(self.layout, state, name, total.get(name))
                self.problems += problems
                self.notes += notes

    def _take(self, found: UnitFindings) -> None:
        self.problems += found.problems
        self.hashed |= found.hashed
        self.damaged |= found.damaged_files
        self.damaged_units |= {(name, found.unit) for name in found.damaged_teachers}

    def _count_rows(
        self,
        found: UnitFindings,
        state: CacheState,
        rows_of_video: dict[str, int],
        last_frame: dict[str, int],
    ) -> None:
        """Add up the rows of each video, which go on in ascending order in its next unit."""
        for video in found.videos:
            before = last_frame.get(video.video_id, -1)
            last_frame[video.video_id] = video.last_frame
            rows_of_video[video.video_id] = rows_of_video.get(video.video_id, 0) + video.count
            if not video.in_place or video.first_frame <= before:
                self.problems.append(
                    f"{unit_name(found.unit)}: rows of video {video.video_id} are not where the "
                    "plan says"
                )
                self.damaged_units |= {
                    (name, found.unit)
                    for name, commits in state.commits.items()
                    if found.unit in commits
                }
