"""Reading a target cache: by identity (video, frame), never by position in some listing."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from distinit.pipeline.cache.arrays import check_array, shard_bytes
from distinit.pipeline.cache.checksums import check_listed
from distinit.pipeline.cache.completion import ExtractCommand, lacking_units, missing_lines
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
from distinit.pipeline.storage import open_inside
from distinit.schemas.errors import CacheCorruptError, CacheError
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.tables import VIDEOS_SCHEMA
from distinit.schemas.teacher import TeacherRecord

if TYPE_CHECKING:
    import zarr

__all__ = ["TargetCache", "TeacherTargets"]


class TargetCache:
    """A cache open for reading. Picklable, and safe to use in forked processes."""

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
        """Teachers of the manifest whose folder was not copied along."""
        self._key = key

    @classmethod
    def open(
        cls, path: str | Path, *, allow_incomplete: bool = False, allow_absent: bool = False
    ) -> TargetCache:
        """Open the cache in folder ``path``; reads a few small files.

        ``allow_absent``: teachers without a folder are left out, as ``absent_teachers``.

        Raises:
            CacheCorruptError: No cache, of another format version, or records that disagree.
            CacheError: It is not complete (unless ``allow_incomplete``), or it holds none of its
                teachers.
        """
        layout = CacheLayout(Path(path).resolve())
        manifest = read_manifest(layout)
        if not manifest.complete and not allow_incomplete:
            raise _not_complete(cls(layout, manifest))
        absent = [n for n in manifest.teachers if allow_absent and not layout.teacher(n).is_dir()]
        cache = cls(layout, manifest, absent_teachers=tuple(absent))
        if absent and not cache.teachers:
            raise CacheError(
                f"{layout.root} holds none of its teachers",
                expected=f"folders below teachers/: {', '.join(absent)}",
                remedy="copy the folder of a teacher at least",
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
                f"teacher {name} has lost units",
                expected=f"{space.units} commit records, as the manifest says complete",
                found=f"{committed} commit records",
                remedy="run the same `distinit extract` again, or restore the cache from a copy",
            )
        for spec in array_specs(record.encoding, record.identity.classes):
            folder = self.layout.array(name, spec.name)
            check_array(folder, spec, space.rows_padded, space.capacity)

    @cached_property
    def teachers(self) -> dict[str, TeacherRecord]:
        """Records of all teachers that are here, by id."""
        here = [name for name in self.manifest.teachers if name not in self.absent_teachers]
        return {name: read_teacher(self.layout, name) for name in here}

    @property
    def missing(self) -> tuple[str, ...]:
        """What it lacks and the command that completes it, a line a teacher; empty if complete."""
        if self.manifest.complete:
            return ()
        run = ExtractCommand(str(self.layout.root), self.manifest.sampling)
        lacking = lacking_units(self.layout, self.manifest)
        lines = missing_lines(lacking, self.teachers, run)
        return tuple(lines) or ("the extraction was not finished; run the same command again",)

    @cached_property
    def videos(self) -> pa.Table:
        """``videos.parquet``: every video, failed ones too, in order of video_id."""
        return read_table(self.layout.videos, VIDEOS_SCHEMA)

    def video_batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of ``videos``, some thousand rows at a time; nothing of them is kept."""
        return read_batches(self.layout.videos, VIDEOS_SCHEMA, names)

    @cached_property
    def index(self) -> TargetIndex:
        """Derived per-row columns; built on first use of this content on this machine."""
        if self._key and (index_folder(self._key) / "index.json").exists():
            # An unpickled copy: the process that pickled it has checked the index.
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
        """The plan and every commit record. Raises CacheCorruptError for damaged ones."""
        plan = read_plan(self.layout.plan)
        self._check_plan(plan.capacity, plan.units)
        return read_state(self.layout, plan, self.teachers)

    def _check_plan(self, capacity: int, units: int) -> None:
        space = self.manifest.row_space
        if (capacity, units) != (space.capacity, space.units):
            raise CacheCorruptError(
                "the plan and the manifest of the cache disagree",
                expected=f"{space.units} units of {space.capacity} rows",
                found=f"{units} units of {capacity} rows",
                remedy="run the same `distinit extract` again, or restore the cache from a copy",
            )

    def digest_of(self, teacher_ids: Collection[str], state: CacheState | None = None) -> str:
        """``content_digest`` of a cache that held these teachers alone, by its commit records.

        It stays as it is when another teacher is added. ``state``: if it has been read already.
        Raises CacheError for a teacher that is not in the cache, CacheCorruptError for damaged
        commit records.
        """
        wanted = {self._known(name).id for name in teacher_ids}
        return (state or self.read_state()).content_digest(self.manifest.sampling, wanted)

    def checked_digest(self, state: CacheState) -> str:
        """``content_digest`` by the commit records: what was read, not what is claimed.

        Raises CacheCorruptError if the manifest claims another. Where teachers are absent there is
        nothing to compare: it is the digest of those that are here.
        """
        found, claimed = self.digest_of(self.teachers, state), self.manifest.content_digest
        if claimed and not self.absent_teachers and found != claimed:
            raise CacheCorruptError(
                "the manifest claims another content than the commit records have",
                expected=f"content_digest {claimed}",
                found=f"content_digest {found}",
                remedy=f"run `distinit cache verify {self.layout.root}`, then the same `distinit "
                "extract` again, or restore the cache from a copy",
            )
        return found

    def targets(self, teacher_id: str) -> TeacherTargets:
        """Targets of one teacher. Raises CacheError for a teacher that is not in the cache."""
        return TeacherTargets(self, self._known(teacher_id))

    def zarr_array(self, teacher_id: str, name: str = "logits") -> zarr.Array[Any]:
        """The stored array through the Zarr API; a missing shard raises instead of reading 0.

        Unused rows still read as zeros: take the rows that the index knows.
        """
        import zarr

        record, space = self._known(teacher_id), self.manifest.row_space
        specs = {s.name: s for s in array_specs(record.encoding, record.identity.classes)}
        limit_bytes = shard_bytes(specs[name], space.capacity)
        for unit in committed_units(self.layout, record.id, space.units):
            self._check_shard(self.layout.shard(record.id, name, unit), limit_bytes)
        folder = self.layout.array(record.id, name)
        return zarr.open_array(folder, mode="r", config={"read_missing_chunks": False})

    def _check_shard(self, path: Path, limit_bytes: int) -> None:
        """Zarr would wait for a pipe, follow a link to anywhere, and read a file of any size."""
        try:
            descriptor = open_inside(self.layout.root, path)
            size_bytes = os.fstat(descriptor).st_size
            os.close(descriptor)
            if size_bytes > limit_bytes:
                raise OSError(errno.EFBIG, f"{size_bytes} bytes, at most {limit_bytes} are right")
        except FileNotFoundError:
            return  # a unit without rows has no shard
        except OSError as error:
            raise CacheCorruptError(
                f"a shard of the cache cannot be opened: {path}",
                expected="a regular file of the cache",
                found=error.strerror,
                remedy="do not use this cache; ask its sender for a clean copy",
            ) from error

    def _known(self, teacher_id: str) -> TeacherRecord:
        if teacher_id in self.absent_teachers:
            raise CacheError(
                f"the folder of teacher {teacher_id} is not in this copy of the cache",
                expected=f"a folder teachers/{teacher_id}",
                found=f"only {', '.join(self.teachers)}",
                remedy="copy it too, or take another teacher",
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
        _ = self.index  # built and checked once, here, not in every process
        kept = ("layout", "manifest", "absent_teachers", "_key")
        return {name: getattr(self, name) for name in kept}


def _not_complete(cache: TargetCache) -> CacheError:
    return CacheError(
        f"the cache {cache.layout.root} is not complete",
        expected=f"{cache.manifest.row_space.units} units of every teacher",
        found="\n".join(cache.missing),
        remedy="run the command above, which does what is lacking; an extraction that was "
        "interrupted goes on with its own command",
    )


class TeacherTargets:
    """What one teacher said, row by row.

    Threads may share it. Picklable; descriptors are opened per process.
    """

    def __init__(self, cache: TargetCache, record: TeacherRecord) -> None:
        self.cache = cache
        self.record = record
        self._specs = array_specs(record.encoding, record.identity.classes)
        # What is known of a shard is kept; of its descriptors only those that were used last.
        self._shards: dict[tuple[str, int], ShardReader] = {}
        self._open: OrderedDict[tuple[str, int], ShardReader] = OrderedDict()
        self._lock = threading.Lock()  # of both: a shard must not be closed while it is read

    @cached_property
    def entropy_nats(self) -> np.ndarray:
        """fp32 [rows_padded], memory-mapped, NaN where a row is unused.

        Raises CacheError for a feature teacher, which has no distribution.
        """
        if self.record.identity.target == "features":
            raise CacheError(
                f"teacher {self.record.id} stores features, which have no entropy",
                expected="a teacher with target logits",
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
        """Rows of one unit."""
        return self.cache.manifest.row_space.capacity

    @cached_property
    def committed_units(self) -> np.ndarray:
        """bool [units]: which units this teacher has written."""
        return self.cache.index.committed(self.record.id)

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """fp32 [N, C] of the given rows, in their order; rows may repeat.

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
        with np.errstate(all="ignore"):  # of what is not finite an error says more than a warning
            logits_NC = decode(stored, self.record.encoding, self.record.identity.classes, log_z_N)
            self._check_finite(rows_N, logits_NC)
        return logits_NC

    def _check_finite(self, rows_N: np.ndarray, logits_NC: np.ndarray) -> None:
        """A NaN would spread when it is trained on; only what was never answered is stored so."""
        if np.isfinite(logits_NC.sum()):  # the quick way: what is not finite stays so in a sum
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
                remedy="leave frames without a row out before asking for targets",
            )
        unit_N = rows_N // space.capacity
        unwritten = (index.video_number[rows_N] < 0) | ~self.committed_units[unit_N]
        if unwritten.any():
            raise CacheCorruptError(
                f"teacher {self.record.id} never wrote a row that is asked for",
                expected="rows that rows_of gives",
                found=f"row {int(rows_N[unwritten][0])}",
                remedy="take rows from this cache's index; extract again if it is incomplete",
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
