"""Brings the statistics of feature teachers up to date with the stored rows.

Each unit has the moments of its own vectors; those of the cache are merged from them in the order
of the units, so that the division of the work and interruptions change nothing.
"""

from __future__ import annotations

import shutil
from contextlib import suppress

import numpy as np

from distinit.pipeline.cache.encoding import ArraySpec, array_specs
from distinit.pipeline.cache.feature_moments import FeatureMoments, merged, moments_of_rows
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.moments_file import (
    MomentsError,
    StoredMoments,
    content_of_units,
    read_moments,
    write_moments,
)
from distinit.pipeline.cache.shards import ShardReader
from distinit.pipeline.cache.state import CacheState
from distinit.pipeline.cache.tables import column
from distinit.pipeline.cache.unit_tables import read_frames
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.storage import storage_errors
from distinit.pipeline.units import unit_name
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import UnitCommit
from distinit.schemas.teacher import TeacherRecord

__all__ = ["update_statistics"]


def update_statistics(
    layout: CacheLayout, state: CacheState, progress: Progress | None = None
) -> None:
    """Write the statistics of every feature teacher of a complete cache, where they are outdated.

    Raises CacheCorruptError for stored rows that cannot be read or are not finite, StorageError.
    """
    for name, record in state.records.items():
        if record.identity.target == "features":
            with storage_errors(layout.root):
                _update(layout, state, name, progress or NullProgress())
                shutil.rmtree(layout.unit_moments(name, 0).parent, ignore_errors=True)


def _update(layout: CacheLayout, state: CacheState, name: str, progress: Progress) -> None:
    record, commits = state.records[name], state.commits[name]
    channels, units = record.identity.channels, sorted(commits)
    digests = [commits[unit].content_sha256 for unit in units]
    known = _readable(layout, record)
    if known is None or content_of_units(digests[: known.units]) != known.content:
        known = StoredMoments(FeatureMoments.empty(channels), 0, content_of_units(()))
    elif known.units == len(units):
        return
    total = known.moments
    progress.start(f"statistics of {name}", len(units), "units", known.units)
    for unit in units[known.units :]:
        total = merged(total, _moments_of_unit(layout, record, commits[unit], state.plan.capacity))
        progress.advance()
    progress.finish()
    new = StoredMoments(total, len(units), content_of_units(digests))
    write_moments(new, layout.statistics(name))


def _readable(layout: CacheLayout, record: TeacherRecord) -> StoredMoments | None:
    with suppress(OSError, MomentsError):
        return read_moments(layout.statistics(record.id), record.identity.channels)
    return None


def _moments_of_unit(
    layout: CacheLayout, record: TeacherRecord, commit: UnitCommit, capacity: int
) -> FeatureMoments:
    """Those that were computed while the unit was written, or else computed from its rows."""
    path = layout.unit_moments(record.id, commit.unit)
    with suppress(OSError, MomentsError):
        kept = read_moments(path, record.identity.channels)
        if kept.content == bytes.fromhex(commit.content_sha256):
            return kept.moments
    return _computed(layout, record, commit, capacity)


def _computed(
    layout: CacheLayout, record: TeacherRecord, commit: UnitCommit, capacity: int
) -> FeatureMoments:
    """The moments of one unit, computed from its stored rows.

    Raises CacheCorruptError for rows that cannot be read or are not finite.
    """
    if not commit.rows:
        return FeatureMoments.empty(record.identity.channels)
    used_N = column(read_frames(layout, commit, capacity), "row") - commit.unit * capacity
    specs = array_specs(record.encoding, record.identity.classes)
    arrays = {s.name: _LocalRows(layout, record.id, s, commit.unit, capacity) for s in specs}
    moments = moments_of_rows(record, arrays, used_N)
    if not np.isfinite(moments.scatter).all():
        raise CacheCorruptError(
            f"teacher {record.id} has features that are not finite in {unit_name(commit.unit)}",
            expected="finite values",
            found="NaN or infinity",
            remedy=f"run `{layout.verify_command()}`",
        )
    return moments


class _LocalRows:
    """The rows of a shard of this machine, read on access."""

    def __init__(
        self, layout: CacheLayout, teacher_id: str, spec: ArraySpec, unit: int, capacity: int
    ) -> None:
        self.dtype, self.shape = spec.dtype, (capacity, spec.width)
        self._reader = ShardReader(layout, teacher_id, spec, unit, capacity)

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        self._reader.read_into(rows, out, np.arange(len(rows)))
        return out
