"""Reads a target cache. Rows are looked up by (video, frame), never by list position."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from distinit.pipeline.cache.arrays import check_array, open_array
from distinit.pipeline.cache.checksums import check_listed
from distinit.pipeline.cache.completion import ExtractCommand, missing_lines, missing_units
from distinit.pipeline.cache.copies import check_copy, read_copy, refuse_unfinished_pull
from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.index import TargetIndex, build_index, index_key
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.mirror import mirror_records
from distinit.pipeline.cache.records import read_manifest, read_teacher
from distinit.pipeline.cache.remote_shards import RemoteShards, stored_bytes
from distinit.pipeline.cache.state import CacheState, committed_units, read_state, summary_of
from distinit.pipeline.cache.tables import (
    read_batches,
    read_plan,
    read_planned_ids,
    read_table,
)
from distinit.pipeline.cache.teacher_targets import TeacherTargets
from distinit.pipeline.derived import index_folder
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.transport.remote import is_url
from distinit.schemas.copies import CopyRecord
from distinit.schemas.errors import CacheCorruptError, CacheError
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.tables import VIDEOS_SCHEMA
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.wording import did_you_mean, first_names, shown

if TYPE_CHECKING:
    import zarr

__all__ = ["TargetCache"]


class TargetCache:
    """A cache opened for reading. Picklable, and safe to use in forked processes."""

    def __init__(
        self,
        layout: CacheLayout,
        manifest: CacheManifest,
        key: str = "",
        absent_teachers: tuple[str, ...] = (),
        copy: CopyRecord | None = None,
        remote: RemoteShards | None = None,
    ) -> None:
        self.layout = layout
        self.manifest = manifest
        self.absent_teachers = absent_teachers
        """Teachers of the manifest whose folder is missing from this copy of the cache."""
        self.copy = copy
        """Which part of the cache a partial copy has; None: all."""
        self.remote = remote
        """Where shards are read from if the cache is not in a folder."""
        self._key = key

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        allow_incomplete: bool = False,
        allow_absent: bool = False,
        keep_gib: float | None = None,
        progress: Progress | None = None,
    ) -> TargetCache:
        """Open the cache in folder ``path``, or at a URL. Reads a few small files only.

        The first time that a machine opens a cache at a URL, it receives all files but the shards
        (see ``mirror``), with ``progress``. ``keep_gib``: shards are received as a whole, and kept
        up to this size; None: parts of shards are received when they are read.

        ``allow_absent``: accept a cache without the folders of some of its teachers; those are
        listed in ``absent_teachers``. A partial copy that states what it lacks is always accepted.

        Raises:
            CacheCorruptError: The cache has another format version, or its records are damaged or
                contradict each other.
            CacheError: The folder is not a cache, the cache is not complete (unless
                ``allow_incomplete``), or the folders of all its teachers are missing.
            TransferError: Files at the URL cannot be received.
        """
        remote = None
        if isinstance(path, str) and is_url(path):
            layout = mirror_records(path, progress or NullProgress())
            limit_bytes = None if keep_gib is None else int(keep_gib * (1 << 30))
            remote = RemoteShards(path, layout, limit_bytes)
        else:
            layout = CacheLayout(Path(path).resolve())
            refuse_unfinished_pull(layout)
        manifest = read_manifest(layout)
        if not manifest.complete and not allow_incomplete:
            raise _not_complete(cls(layout, manifest))
        copy = read_copy(layout, manifest)
        if copy is None:
            names = manifest.teachers if allow_absent else ()
            absent = [name for name in names if not layout.teacher(name).is_dir()]
        else:
            absent = [name for name in manifest.teachers if name not in copy.teachers]
        cache = cls(layout, manifest, absent_teachers=tuple(absent), copy=copy, remote=remote)
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
        planned = space.units if self.copy is None else len(self.copy.units)
        if self.manifest.complete and committed < planned:
            raise CacheCorruptError(
                f"commit records of teacher {name} are missing",
                expected=f"{planned} commit records: the manifest says that it is complete",
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
    def video_ids(self) -> tuple[str, ...]:
        """Ids of the videos with targets, sorted. Videos that failed have none."""
        ids_V = self.index.video_ids[np.asarray(self.index.row_count) > 0]
        return tuple(video_id.decode() for video_id in ids_V)

    def video_id_of(self, path: str) -> str:
        """The id of the video at ``path``, relative to the folder that was extracted.

        Copies of a video have one id, and only one of their paths is known. Raises CacheError for
        an unknown path.
        """
        paths = self.videos.column("path").to_pylist()
        if path not in paths:
            raise CacheError(
                f"the cache has no video {path}",
                expected=f"a path in videos.parquet, such as {first_names(paths, 2)}",
                remedy="give the path relative to the folder of the videos",
            )
        video_id: str = self.videos.column("video_id")[paths.index(path)].as_py()
        return video_id

    def rows_of(
        self, video_id: str, frames: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """Rows (int64 [N]) of frames of one video, in their order; None: of all its targets.

        Raises CacheError if the cache has no targets for the video, or none for a frame.
        """
        index = self.index
        number = index.number_of(video_id)
        first, count = int(index.first_row[number]), int(index.row_count[number])
        if not count:
            raise _no_targets(video_id, self._why_absent(video_id))
        if frames is None:
            return np.arange(first, first + count)
        row_N = index.rows_of(video_id, frames)
        if (row_N < 0).any():
            missing = np.asarray(frames)[row_N < 0].tolist()
            raise _no_targets_for(video_id, missing, index.frame_index[first : first + count])
        return row_N

    def _why_absent(self, video_id: str) -> str | None:
        if self.copy is not None:
            plan = read_plan(self.layout.plan)
            unit = plan.latest[video_id].first_row // plan.capacity
            if unit not in self.copy.units:
                return f"its unit {unit} is not in this partial copy of the cache"
        if not self.layout.videos.exists():  # it is written at the end of an extraction
            return None
        columns = (self.videos.column(name).to_pylist() for name in ("video_id", "error"))
        error = dict(zip(*columns, strict=True)).get(video_id)
        return error and f"it failed: {error}"

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
        present = None if self.remote is None else stored_bytes(self.layout, self.teachers)
        space = self.manifest.row_space
        return build_index(self.layout, ids_V, space, self.teachers, folder, present)

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
        the digest of the teachers that are present, and there is nothing to compare it with. A
        partial copy is compared as a whole, and gives the digest of what it has.
        """
        if self.copy is not None:
            check_copy(self.layout, self.manifest, self.copy, state)
            return self.digest_of(self.teachers, state)
        found, stated = self.digest_of(self.teachers, state), self.manifest.content_digest
        if stated and not self.absent_teachers and found != stated:
            raise CacheCorruptError(
                "the content digest in the manifest is not that of the commit records",
                expected=f"content_digest {stated}",
                found=f"content_digest {found}",
                remedy=f"run `{self.layout.verify_command()}`, then rerun the same "
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
        if self.remote is not None:
            raise CacheError(
                "zarr does not read a cache at a URL through DistInit",
                expected="a cache in a folder",
                remedy="copy it with `distinit cache pull`, or use `targets`",
            )
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
                f"the cache has no teacher {shown(teacher_id)}",
                expected=f"one of {', '.join(sorted(self.teachers))}",
                remedy=did_you_mean(teacher_id, self.teachers) or "see `distinit cache info`",
                named_input=True,
            )
        return self.teachers[teacher_id]

    def __getstate__(self) -> dict[str, Any]:
        _ = self.index  # built and checked once here, not in every process
        kept = ("layout", "manifest", "absent_teachers", "copy", "remote", "_key")
        return {name: getattr(self, name) for name in kept}


def _not_complete(cache: TargetCache) -> CacheError:
    return CacheError(
        f"the cache {cache.layout.root} is not complete",
        expected=f"{cache.manifest.row_space.units} units of every teacher",
        found="\n".join(cache.missing),
        remedy="run the command above, which extracts what is missing; to resume an interrupted "
        "extraction, rerun the same command",
    )


def _no_targets(video_id: str, why: str | None) -> CacheError:
    return CacheError(
        f"the cache has no targets for video {video_id}",
        expected="one of TargetCache.video_ids",
        found=why or "no rows",
        remedy="leave the video out, or replace its file and extract again",
    )


def _no_targets_for(video_id: str, missing: list[int], has_N: np.ndarray) -> CacheError:
    frames = "frame" if len(missing) == 1 else "frames"
    first = ", ".join(map(str, has_N[:3]))
    return CacheError(
        f"video {video_id} has no target for {frames} {first_names(map(str, missing))}",
        expected=first if len(has_N) < 4 else f"{first} .. {has_N[-1]} ({len(has_N)} frames)",
        remedy="leave out `frames` to read all targets of the video",
    )
