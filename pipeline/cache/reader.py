"""Reads a target cache. Rows are looked up by (video, frame), never by list position."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from distinit.pipeline.cache.arrays import check_array, open_array
from distinit.pipeline.cache.checksums import check_listed
from distinit.pipeline.cache.completion import ExtractCommand, missing_lines, missing_units
from distinit.pipeline.cache.encoding import ArraySpec, array_specs, decode
from distinit.pipeline.cache.index import TargetIndex, build_index, index_key
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import read_manifest, read_teacher
from distinit.pipeline.cache.shards import ShardReader
from distinit.pipeline.cache.state import CacheState, committed_units, read_state, summary_of
from distinit.pipeline.cache.tables import (
    read_batches,
    read_plan,
    read_planned_ids,
    read_table,
)
from distinit.pipeline.derived import index_folder
from distinit.pipeline.open_files import files_at_once
from distinit.schemas.errors import CacheCorruptError, CacheError
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.tables import VIDEOS_SCHEMA
from distinit.schemas.teacher import TeacherRecord

if TYPE_CHECKING:
    import zarr

__all__ = ["TargetCache", "TeacherTargets"]


class TargetCache:
    """A cache opened for reading. Picklable, and safe to use in forked processes."""

    def __init__(
        self,
        layout: CacheLayout,
        manifest: CacheManifest,
        key: str = "",
        absent_teachers: tuple[str, ...] = (),
    ) -> None:
        self.layout = layout
        self.manifest = manifest
        self.absent_teachers = absent_teachers
        """Teachers of the manifest whose folder is missing from this copy of the cache."""
        self._key = key

    @classmethod
    def open(
        cls, path: str | Path, *, allow_incomplete: bool = False, allow_absent: bool = False
    ) -> TargetCache:
        """Open the cache in folder ``path``. Reads a few small files only.

        ``allow_absent``: accept a cache without the folders of some of its teachers; those are
        listed in ``absent_teachers``.

        Raises:
            CacheCorruptError: The folder is not a cache, has another format version, or its
                records contradict each other.
            CacheError: The cache is not complete (unless ``allow_incomplete``), or the folders of
                all its teachers are missing.
        """
        layout = CacheLayout(Path(path).resolve())
        manifest = read_manifest(layout)
        if not manifest.complete and not allow_incomplete:
            raise _not_complete(cls(layout, manifest))
        absent = [n for n in manifest.teachers if allow_absent and not layout.teacher(n).is_dir()]
        cache = cls(layout, manifest, absent_teachers=tuple(absent))
        if absent and not cache.teachers:
            raise CacheError(
                f"{layout.root} contains none of its teachers",
                expected=f"folders in teachers/: {', '.join(absent)}",
                remedy="copy the folder of at least one teacher",
            )
        for name in cache.teachers:
            cache._check_teacher(name)
        return cache

    def _check_teacher(self, name: str) -> None:
        record, summary = self.teachers[name], self.manifest.teachers[name]
        if summary_of(record, summary.units_committed) != summary:
            raise CacheCorruptError(
                f"the manifest and the record of teacher {name} disagree",
                expected=summary.model_dump(),
                found=summary_of(record, summary.units_committed).model_dump(),
                remedy="do not use this cache; ask its sender for a clean copy",
            )
        space = self.manifest.row_space
        committed = len(self.layout.committed_units(name))
        if self.manifest.complete and committed < space.units:
            raise CacheCorruptError(
                f"commit records of teacher {name} are missing",
                expected=f"{space.units} commit records: the manifest says that it is complete",
                found=f"{committed} commit records",
                remedy="rerun the same `distinit extract`, or restore the cache from a copy",
            )
        for spec in array_specs(record.encoding, record.identity.classes):
            folder = self.layout.array(name, spec.name)
            check_array(folder, spec, space.rows_padded, space.capacity)

    @cached_property
    def teachers(self) -> dict[str, TeacherRecord]:
        """Records of all teachers whose folder exists, by id."""
        present = [name for name in self.manifest.teachers if name not in self.absent_teachers]
        return {name: read_teacher(self.layout, name) for name in present}

    @property
    def missing(self) -> tuple[str, ...]:
        """One line per incomplete teacher, with the command that completes it."""
        if self.manifest.complete:
            return ()
        run = ExtractCommand(str(self.layout.root), self.manifest.sampling)
        units = missing_units(self.layout, self.manifest)
        lines = missing_lines(units, self.teachers, run)
        return tuple(lines) or ("the extraction was not finished; rerun the same command",)

    @cached_property
    def videos(self) -> pa.Table:
        """``videos.parquet``: all videos, including failed ones, ordered by video_id."""
        return read_table(self.layout.videos, VIDEOS_SCHEMA)

    def video_batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The columns ``names`` of ``videos``, a few thousand rows at a time; nothing is cached."""
        return read_batches(self.layout.videos, VIDEOS_SCHEMA, names)

    @cached_property
    def index(self) -> TargetIndex:
        """Memory-mapped columns per row; built when a machine first uses this content."""
        if self._key and (index_folder(self._key) / "index.json").exists():
            # An unpickled copy: the process that pickled it checked the index.
            return TargetIndex(index_folder(self._key))
        self._key = index_key(self.layout, self.manifest.row_space, self.teachers)
        folder = index_folder(self._key)
        rows = self.manifest.row_space.rows_padded
        return TargetIndex.open(folder, rows) or self._build_index(folder)

    def _build_index(self, folder: Path) -> TargetIndex:
        ids_V, capacity, units = read_planned_ids(self.layout.plan)
        self._check_plan(capacity, units)
        check_listed(self.layout, (self.layout.plan, self.layout.videos))
        return build_index(self.layout, ids_V, self.manifest.row_space, self.teachers, folder)

    def read_state(self) -> CacheState:
        """The plan and all commit records. Raises CacheCorruptError if one is damaged."""
        plan = read_plan(self.layout.plan)
        self._check_plan(plan.capacity, plan.units)
        return read_state(self.layout, plan, self.teachers)

    def _check_plan(self, capacity: int, units: int) -> None:
        space = self.manifest.row_space
        if (capacity, units) != (space.capacity, space.units):
            raise CacheCorruptError(
                "the plan and the manifest of the cache contradict each other",
                expected=f"{space.units} units of {space.capacity} rows",
                found=f"{units} units of {capacity} rows",
                remedy="rerun the same `distinit extract`, or restore the cache from a copy",
            )

    def digest_of(self, teacher_ids: Collection[str], state: CacheState | None = None) -> str:
        """``content_digest`` of a cache with these teachers only, from the commit records.

        Adding another teacher to the cache does not change it. ``state``: pass it if it was read
        already. Raises CacheError for a teacher that is not in the cache, CacheCorruptError for
        damaged commit records.
        """
        selected = {self._record(name).id for name in teacher_ids}
        return (state or self.read_state()).content_digest(self.manifest.sampling, selected)

    def checked_digest(self, state: CacheState) -> str:
        """``content_digest`` computed from the commit records, not taken from the manifest.

        Raises CacheCorruptError if the manifest has another digest. If teachers are absent, it is
        the digest of the teachers that are present, and there is nothing to compare it with.
        """
        found, stated = self.digest_of(self.teachers, state), self.manifest.content_digest
        if stated and not self.absent_teachers and found != stated:
            raise CacheCorruptError(
                "the content digest in the manifest is not that of the commit records",
                expected=f"content_digest {stated}",
                found=f"content_digest {found}",
                remedy=f"run `distinit cache verify {self.layout.root}`, then rerun the same "
                "`distinit extract`, or restore the cache from a copy",
            )
        return found

    def targets(self, teacher_id: str) -> TeacherTargets:
        """Targets of one teacher. Raises CacheError for a teacher that is not in the cache."""
        return TeacherTargets(self, self._record(teacher_id))

    def zarr_array(self, teacher_id: str, name: str = "logits") -> zarr.Array[Any]:
        """The stored array through the Zarr API; a missing shard raises an error, see open_array.

        Unused rows read as zeros: use only rows that the index lists.
        """
        record, space = self._record(teacher_id), self.manifest.row_space
        units = committed_units(self.layout, record.id, space.units)
        return open_array(self.layout, record, name, units, space.capacity)

    def _record(self, teacher_id: str) -> TeacherRecord:
        if teacher_id in self.absent_teachers:
            raise CacheError(
                f"the folder of teacher {teacher_id} is not in this copy of the cache",
                expected=f"a folder teachers/{teacher_id}",
                found=f"only {', '.join(self.teachers)}",
                remedy="copy it too, or choose another teacher",
            )
        if teacher_id not in self.teachers:
            raise CacheError(
                f"the cache has no teacher {teacher_id!r}",
                expected=f"one of {sorted(self.teachers)}",
                found=repr(teacher_id),
                remedy="`distinit cache info` lists them",
            )
        return self.teachers[teacher_id]

    def __getstate__(self) -> dict[str, Any]:
        _ = self.index  # built and checked once here, not in every process
        kept = ("layout", "manifest", "absent_teachers", "_key")
        return {name: getattr(self, name) for name in kept}


def _not_complete(cache: TargetCache) -> CacheError:
    return CacheError(
        f"the cache {cache.layout.root} is not complete",
        expected=f"{cache.manifest.row_space.units} units of every teacher",
        found="\n".join(cache.missing),
        remedy="run the command above, which extracts what is missing; to resume an interrupted "
        "extraction, rerun the same command",
    )


class TeacherTargets:
    """The stored targets of one teacher, by row.

    Safe to share between threads. Picklable; each process opens its own files.
    """

    def __init__(self, cache: TargetCache, record: TeacherRecord) -> None:
        self.cache = cache
        self.record = record
        self._specs = array_specs(record.encoding, record.identity.classes)
        # All readers are kept, since they remember which chunks were verified; only the most
        # recently used ones keep their file open.
        self._shards: dict[tuple[str, int], ShardReader] = {}
        self._open: OrderedDict[tuple[str, int], ShardReader] = OrderedDict()
        self._lock = threading.Lock()  # for both: no shard may be closed while it is read

    @cached_property
    def entropy_nats(self) -> np.ndarray:
        """fp32 [rows_padded], memory-mapped; NaN in unused rows.

        Raises CacheError for a teacher that stores features, which have no entropy.
        """
        if self.record.identity.target == "features":
            raise CacheError(
                f"teacher {self.record.id} stores features, which have no entropy",
                expected="a teacher whose target is logits",
                found="target features",
                remedy="choose another teacher for filtering",
            )
        return self.cache.index.teacher_column(self.record.id, "entropy_nats")

    @cached_property
    def _log_z(self) -> np.ndarray | None:
        if not self.record.encoding.startswith("topk"):
            return None
        return self.cache.index.teacher_column(self.record.id, "log_z")

    @property
    def unit_rows(self) -> int:
        """Rows per unit."""
        return self.cache.manifest.row_space.capacity

    @cached_property
    def committed_units(self) -> np.ndarray:
        """bool [units]: which units this teacher has committed."""
        return self.cache.index.committed(self.record.id)

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Targets of the given rows, fp32 [N, C] in the same order; rows may repeat.

        Raises:
            CacheError: A row is outside of the cache.
            CacheCorruptError: A row was never written, or its shard is missing or damaged.
        """
        rows_N = np.asarray(rows, np.int64)
        unit_N = self._check_rows(rows_N)
        capacity = self.cache.manifest.row_space.capacity
        stored = {s.name: np.empty((len(rows_N), s.width), s.dtype) for s in self._specs}
        for unit in np.unique(unit_N).tolist():
            where_N = np.flatnonzero(unit_N == unit)
            inside_N = rows_N[where_N] - unit * capacity
            with self._lock:
                for spec in self._specs:
                    self._shard(spec, unit).read_into(inside_N, stored[spec.name], where_N)
        log_z_N = None if self._log_z is None else np.asarray(self._log_z[rows_N])
        with np.errstate(all="ignore"):  # values that are not finite raise an error below
            logits_NC = decode(stored, self.record.encoding, self.record.identity.classes, log_z_N)
            self._check_finite(rows_N, logits_NC)
        return logits_NC

    def _check_finite(self, rows_N: np.ndarray, logits_NC: np.ndarray) -> None:
        """Raise for values that are not finite, except in rows without an output of the teacher."""
        if np.isfinite(logits_NC.sum()):  # fast: a value that is not finite shows in the sum
            return
        wrong_N = ~np.isfinite(logits_NC).all(axis=1)
        wrong_N &= ~np.isin(rows_N, self.cache.index.unanswered(self.record.id))
        if wrong_N.any():
            raise CacheCorruptError(
                f"teacher {self.record.id} has targets that are not finite",
                expected="finite values",
                found=f"NaN or infinity in row {int(rows_N[wrong_N][0])}",
                remedy=f"run `distinit cache verify {self.cache.layout.root}`; ask the sender of "
                "the cache for a clean copy",
            )

    def _check_rows(self, rows_N: np.ndarray) -> np.ndarray:
        space, index = self.cache.manifest.row_space, self.cache.index
        outside = (rows_N < 0) | (rows_N >= space.rows_padded)
        if outside.any():
            raise CacheError(
                "a row is outside of the cache",
                expected=f"0 .. {space.rows_padded - 1} (-1 marks a frame without a row)",
                found=int(rows_N[outside][0]),
                remedy="remove frames without a row before reading targets",
            )
        unit_N = rows_N // space.capacity
        unwritten = (index.video_number[rows_N] < 0) | ~self.committed_units[unit_N]
        if unwritten.any():
            raise CacheCorruptError(
                f"teacher {self.record.id} never wrote a requested row",
                expected="rows from cache.index.rows_of",
                found=f"row {int(rows_N[unwritten][0])}",
                remedy="take rows from the index of this cache; extract again if it is incomplete",
            )
        return unit_N

    def _shard(self, spec: ArraySpec, unit: int) -> ShardReader:
        key = (spec.name, unit)
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        if key not in self._shards:
            layout, capacity = self.cache.layout, self.cache.manifest.row_space.capacity
            self._shards[key] = ShardReader(layout, self.record.id, spec, unit, capacity)
        self._open[key] = self._shards[key]
        if len(self._open) > files_at_once():
            self._open.popitem(last=False)[1].release()
        return self._shards[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"cache": self.cache, "record": self.record}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["cache"], state["record"])  # type: ignore[misc]
