"""Writes a derived cache unit by unit. A killed run continues after the last committed unit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from distinit.pipeline.cache.arrays import write_array_metadata
from distinit.pipeline.cache.cards import write_cards
from distinit.pipeline.cache.damage import find_damage, remove_commits
from distinit.pipeline.cache.digest import plan_summary
from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.opening import refuse_other_files, remove_leftovers, start_cache
from distinit.pipeline.cache.plan import PlannedRows, UnitGroup
from distinit.pipeline.cache.records import read_commit, read_manifest
from distinit.pipeline.cache.state import CacheState, manifest_of, read_state, with_losses
from distinit.pipeline.cache.statistics_update import update_statistics
from distinit.pipeline.cache.tables import plan_table, videos_table, write_table
from distinit.pipeline.cache.target_rows import TargetRows
from distinit.pipeline.cache.unit import StagedUnit, UnitBuffer
from distinit.pipeline.combining.blueprint import Blueprint, DerivedVideo
from distinit.pipeline.combining.commits import derived_commit
from distinit.pipeline.combining.recoding import recoded
from distinit.pipeline.combining.relabelling import relabelled_rows
from distinit.pipeline.combining.rows import RowReader
from distinit.pipeline.combining.source import Source
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.progress import Progress
from distinit.pipeline.records import write_record
from distinit.pipeline.storage import move_synced, refuse_links, storage_errors
from distinit.pipeline.units import unit_name
from distinit.schemas.errors import CacheError, CacheMismatchError, ConfigError
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.teacher import TeacherRecord

__all__ = ["check_out", "write_derived"]

_BLOCK_ROWS = 1_024


def write_derived(
    out: Path, sources: Sequence[Source], blueprint: Blueprint, progress: Progress
) -> CacheManifest:
    """Write the cache of ``blueprint`` to ``out``; returns its manifest.

    If ``out`` holds a part of this cache, the rest is written; a complete one is left as it is.

    Raises:
        CacheError: The folder holds other files, or links.
        CacheMismatchError: It holds another cache.
        LockedError: Another process is writing it.
    """
    layout = CacheLayout(out.resolve())
    refuse_links(layout.root, CacheError)
    _check_folder(layout, blueprint)  # before the lock, whose file would stay in a refused folder
    with WriterLock(layout.lock):
        _check_folder(layout, blueprint)  # another process may have written since
        return _DerivedWriter(layout, sources, blueprint, progress).run()


def check_out(out: Path, sources: Sequence[Path]) -> None:
    """Raise ConfigError if ``out`` is a source, or lies inside of a cache or a frame store."""
    place = out.resolve()
    for source in sources:
        if source.resolve().is_relative_to(place):
            raise ConfigError(
                f"{out} is a cache that is read, or contains one",
                expected="a new folder",
                remedy="choose another --out",
            )
    refuse_inside_data(place.parent)


def _check_folder(layout: CacheLayout, blueprint: Blueprint) -> None:
    """Raise CacheError unless the folder is empty, or has a part of the cache of ``blueprint``."""
    if not layout.manifest.exists():
        if layout.root.is_dir():
            refuse_other_files(layout)
        return
    manifest = read_manifest(layout)
    found = (manifest.derived_from, manifest.plan.digest)
    if found != (blueprint.derivation, plan_summary(plan_table(blueprint.plan)).digest):
        raise CacheMismatchError(
            f"{layout.root} holds another cache",
            expected="a new folder, or the unfinished result of the same command",
            found=manifest.content_digest or "an incomplete cache",
            remedy="choose another --out, or remove that folder",
        )


@dataclass
class _DerivedWriter:
    layout: CacheLayout
    sources: Sequence[Source]
    blueprint: Blueprint
    progress: Progress
    readers: list[RowReader] = field(init=False)

    def __post_init__(self) -> None:
        self.readers = [RowReader(source) for source in self.sources]

    def run(self) -> CacheManifest:
        """Write what is missing."""
        plan = self.blueprint.plan
        # The list of checksums is the last file that is written.
        if self.layout.checksums.exists() and (known := read_manifest(self.layout)).complete:
            return known
        remove_leftovers(self.layout)
        self._start()
        done = self._committed_units()
        self.progress.start("copy", plan.units, "units", len(done))
        try:
            with storage_errors(self.layout.root):
                for group in plan.groups:
                    for unit in group.unit_range:
                        if unit not in done:
                            self._write_unit(group, unit)
                            self.progress.advance()
        finally:
            self.progress.finish()
            for reader in self.readers:
                reader.close()
        return self._finish()

    def _start(self) -> None:
        """Write plan, manifest, and the record and arrays of each teacher, unless they exist."""
        blueprint = self.blueprint
        if not self.layout.manifest.exists():
            start_cache(
                self.layout, blueprint.plan, blueprint.sampling, derived_from=blueprint.derivation
            )
        capacity = blueprint.plan.capacity
        for name, record in blueprint.records.items():
            write_record(record, self.layout.teacher_record(name))
            for spec in array_specs(record.encoding, record.identity.classes):
                folder = self.layout.array(name, spec.name)
                write_array_metadata(folder, spec, blueprint.plan.units * capacity, capacity)
        self._write_manifest(blueprint.records, complete=False)

    def _committed_units(self) -> set[int]:
        """Units that an earlier run has finished for all teachers."""
        records, plan = self.blueprint.records, self.blueprint.plan
        read = partial(read_commit, self.layout)
        damage = find_damage(self.layout, plan, records, read=read, complete=False)
        remove_commits(self.layout, [(found.teacher_id, found.unit) for found in damage])
        committed = [self.layout.committed_units(name) for name in records]
        return set(frozenset.intersection(*committed)) if committed else set()

    def _write_unit(self, group: UnitGroup, unit: int) -> None:
        records = self.blueprint.records
        buffer = UnitBuffer(unit, self.blueprint.plan.capacity, list(records.values()))
        for entry in group.videos:
            self._fill(buffer, entry)
        staging = self.layout.staging / unit_name(unit)
        shutil.rmtree(staging, ignore_errors=True)
        staged = buffer.stage(self.layout, staging)
        self._publish(group, staged)
        shutil.rmtree(staging, ignore_errors=True)

    def _fill(self, buffer: UnitBuffer, entry: PlannedRows) -> None:
        """Copy the rows of one video that lie in the unit of ``buffer``."""
        video = self.blueprint.videos[entry.video_id]
        for start, stop in self._blocks(video, entry, buffer.unit):
            reader, there = self.readers[video.origin.source], video.origin.video_id
            frames = replace(reader.frames(there, start, stop), video_id=video.video_id)
            inside = entry.first_row + start - buffer.unit * self.blueprint.plan.capacity
            targets = {name: self._targets(video, name, start, stop) for name in video.targets}
            buffer.put(inside, frames, targets)

    def _blocks(
        self, video: DerivedVideo, entry: PlannedRows, unit: int
    ) -> Iterator[tuple[int, int]]:
        """Rows of the video in a unit, counted within the video, in blocks of bounded size."""
        if video.outcome.status != "ok":
            return
        _, rows = self.readers[video.origin.source].extent(video.origin.video_id)
        capacity = self.blueprint.plan.capacity
        start = max(unit * capacity - entry.first_row, 0)
        end = min((unit + 1) * capacity - entry.first_row, rows)
        for first in range(start, end, _BLOCK_ROWS):
            yield first, min(first + _BLOCK_ROWS, end)

    def _targets(self, video: DerivedVideo, name: str, start: int, stop: int) -> TargetRows | None:
        origin = video.targets[name]
        if origin is None:
            return None
        there = self._id_there(name, origin.source)
        rows = self.readers[origin.source].targets(there, origin.video_id, start, stop)
        before, after = self.sources[origin.source].records[there], self.blueprint.records[name]
        if name in self.blueprint.vocabularies:
            return relabelled_rows(rows, before, after, self.blueprint.vocabularies[name])
        return rows if before.encoding == after.encoding else recoded(rows, before, after)

    def _id_there(self, name: str, source: int) -> str:
        there = self.blueprint.teacher_ids[name][source]
        assert there is not None, "videos take targets from sources that have the teacher"
        return there

    def _publish(self, group: UnitGroup, staged: StagedUnit) -> None:
        """Move the files to their places; the commit records come last."""
        for name, record in self.blueprint.records.items():
            self.layout.commit(name, staged.unit).unlink(missing_ok=True)
            for spec in array_specs(record.encoding, record.identity.classes):
                self.layout.shard(name, spec.name, staged.unit).unlink(missing_ok=True)
        move_synced(staged.frames_file, self.layout.frames(staged.unit))
        for teacher in staged.teachers.values():
            teacher.publish()
        for name, record in self.blueprint.records.items():
            commit = derived_commit(
                self.layout, self.blueprint, self.readers, group, staged, record
            )
            write_record(commit, self.layout.commit(name, staged.unit))

    def _write_manifest(
        self, records: Mapping[str, TeacherRecord], *, complete: bool
    ) -> tuple[CacheManifest, CacheState]:
        blueprint = self.blueprint
        state = read_state(self.layout, blueprint.plan, records)
        manifest = manifest_of(
            state,
            blueprint.sampling,
            plan_summary(plan_table(blueprint.plan)),
            complete=complete,
            derived_from=blueprint.derivation,
        )
        manifest = manifest.model_copy(update={"provenance": blueprint.provenance})
        write_record(manifest, self.layout.manifest)
        return manifest, state

    def _finish(self) -> CacheManifest:
        """Write all files that are derived from the commits; the manifest says complete."""
        plan = self.blueprint.plan
        state = read_state(self.layout, plan, self.blueprint.records)
        write_table(videos_table(plan, state.outcomes), self.layout.videos)
        measured = {
            name: with_losses(record, state.commits[name])
            for name, record in self.blueprint.records.items()
        }
        for name, record in measured.items():
            write_record(record, self.layout.teacher_record(name))
        update_statistics(self.layout, state, self.progress)
        manifest, state = self._write_manifest(measured, complete=True)
        remove_leftovers(self.layout)
        write_cards(self.layout, manifest, state)
        return manifest
