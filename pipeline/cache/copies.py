"""Partial copies of a cache: some of its teachers or units, as ``copy.json`` states.

A copy says what it lacks. Everything in it can still be compared with the published content digest
of the whole cache, because ``copy.json`` has the digests of the missing units.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distinit.pipeline.cache.digest import content_digest
from distinit.pipeline.cache.layout import PULL_NOTES, CacheLayout
from distinit.pipeline.cache.plan import UnitPlan
from distinit.pipeline.cache.records import read_manifest
from distinit.pipeline.cache.state import CacheState
from distinit.pipeline.cache.tables import read_table
from distinit.pipeline.records import read_record
from distinit.schemas.copies import CopyRecord
from distinit.schemas.errors import CacheCorruptError, CacheError, ConfigError
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.tables import VIDEOS_SCHEMA
from distinit.schemas.wording import counted, did_you_mean, first_names, shown

__all__ = [
    "Selection",
    "check_copy",
    "copy_of",
    "describe_copy",
    "read_copy",
    "refuse_copy",
    "refuse_unfinished_pull",
]

_UNIT_RANGE = re.compile(r"([0-9]{1,8})(?:-([0-9]{1,8}))?")
_PULL_AGAIN = "pull the copy again"


@dataclass(frozen=True, slots=True)
class Selection:
    """What to copy; None: all. ``units`` is text such as ``0-3,7``.

    ``videos`` are ids, digests, paths or file names of videos, of which the units are copied.
    """

    teachers: tuple[str, ...] | None = None
    units: str | None = None
    videos: tuple[str, ...] | None = None

    @property
    def by_unit(self) -> bool:
        """Whether only some units may be copied."""
        return self.units is not None or self.videos is not None

    def check_teachers(self, manifest: CacheManifest) -> tuple[str, ...]:
        """The selected teachers, sorted. Raises ConfigError for unknown ones."""
        for name in self.teachers or ():
            if name not in manifest.teachers:
                raise ConfigError(
                    f"the cache has no teacher {shown(name)}",
                    expected=f"one of {first_names(sorted(manifest.teachers))}",
                    remedy=did_you_mean(name, manifest.teachers),
                )
        return tuple(sorted(set(self.teachers or manifest.teachers)))

    def check_units(self, manifest: CacheManifest) -> tuple[int, ...] | None:
        """The units that ``units`` names, ascending; None: all. Raises ConfigError."""
        if self.units is None:
            return None
        planned, chosen = manifest.row_space.units, set[int]()
        for part in self.units.split(","):
            match = _UNIT_RANGE.fullmatch(part.strip())
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
            if not first <= last < planned:
                raise ConfigError(
                    f"{shown(part)} does not name units of the cache",
                    expected=f"numbers and ranges from 0 to {planned - 1}, such as "
                    f"{_example(planned)}",
                )
            chosen |= set(range(first, last + 1))
        return tuple(sorted(chosen))

    def units_of(self, manifest: CacheManifest, plan: UnitPlan) -> tuple[int, ...]:
        """All units to copy, ascending: whole groups, so that no video is cut.

        Raises ConfigError for unknown units and videos.
        """
        named = self.check_units(manifest)
        units = set(range(plan.units)) if named is None else set(named)
        if self.videos is not None:
            units &= _units_of_videos(self.videos, plan)
        if not units:
            raise ConfigError("--units and --videos have no unit in common", remedy="give one only")
        groups = (set(range(g.first_unit, g.first_unit + g.units)) for g in plan.groups)
        return tuple(sorted(set[int]().union(*(group for group in groups if group & units))))


def _example(units: int) -> str:
    """A value of ``--units`` for a cache with this number of units."""
    return "0-3,7" if units > 7 else f"0-{units - 1}" if units > 1 else "0"


def _units_of_videos(wanted: Iterable[str], plan: UnitPlan) -> set[int]:
    units_by_name: dict[str, set[int]] = {}
    for entry in plan.latest.values():
        units = range(entry.first_row // plan.capacity, entry.last_row // plan.capacity + 1)
        names = (entry.video_id, entry.digest, entry.path, entry.path.rpartition("/")[2])
        for name in names:
            units_by_name.setdefault(name, set()).update(units)
    unknown = [name for name in wanted if name not in units_by_name]
    if unknown:
        raise ConfigError(
            f"the cache does not have {counted(len(unknown), 'video')} of the list",
            expected="ids, sha256 digests, paths or file names from videos.parquet",
            found=first_names(map(shown, unknown)),
            remedy="correct the list",
        )
    return set[int]().union(*(units_by_name[name] for name in wanted))


def refuse_copy(layout: CacheLayout, outcome: str = "nothing was changed") -> None:
    """Raise CacheError for a partial copy. ``outcome``: what was not done, for the message."""
    if layout.copy.exists():
        manifest = read_manifest(layout)
        copy = read_copy(layout, manifest)
        raise CacheError(
            f"{layout.root} is a partial copy of a cache, which is only read: {outcome}",
            expected="a whole cache",
            found=None if copy is None else describe_copy(copy, manifest),
            remedy="pull all of it (`distinit cache pull URL FOLDER` without --units, --videos and "
            "--teacher) and use that; the same pull again fetches damaged files of a part",
            named_input=True,
        )


def refuse_unfinished_pull(layout: CacheLayout) -> None:
    """Raise CacheError for a folder in which files of a pull are still arriving."""
    if (layout.root / PULL_NOTES).exists():
        raise CacheError(
            f"{layout.root} is not a cache yet: the `distinit cache pull` into it has not ended",
            expected="a complete folder",
            remedy="run the same `distinit cache pull` again, which goes on where it was",
        )


def copy_of(
    manifest: CacheManifest, state: CacheState, teachers: Sequence[str], units: Sequence[int]
) -> CopyRecord | None:
    """The record of a copy with these parts of a whole cache; None if that is everything."""
    kept = set(units)
    absent = {
        name: {
            str(unit): commit.content_sha256
            for unit, commit in sorted(state.commits[name].items())
            if name not in teachers or unit not in kept
        }
        for name in sorted(manifest.teachers)
    }
    absent = {name: digests for name, digests in absent.items() if digests}
    if not absent and len(teachers) == len(manifest.teachers):
        return None
    return CopyRecord(
        content_digest=manifest.content_digest,
        teachers=tuple(sorted(teachers)),
        units=tuple(units),
        absent=absent,
    )


def read_copy(layout: CacheLayout, manifest: CacheManifest) -> CopyRecord | None:
    """``copy.json``; None for a cache that does not have it, which is whole.

    Raises CacheCorruptError if it is damaged, or does not belong to the manifest.
    """
    if not layout.copy.exists():
        return None
    record = read_record(layout.copy, CopyRecord, error=CacheCorruptError, remedy=_PULL_AGAIN)
    units, kept = range(manifest.row_space.units), set(record.units)
    consistent = (
        record.content_digest == manifest.content_digest
        and set(record.teachers) <= manifest.teachers.keys()
        and list(record.units) == sorted(kept)
        and all(unit in units for unit in record.units)
        and all(
            set(record.absent.get(name, ()))
            == {str(u) for u in units if name not in record.teachers or u not in kept}
            for name in manifest.teachers
        )
        and record.absent.keys() <= manifest.teachers.keys()
    )
    if not consistent:
        raise CacheCorruptError(
            f"{layout.copy} does not belong to the manifest beside it",
            expected=f"a copy of the cache {manifest.content_digest}",
            found=f"another one: {record.content_digest}, or other teachers and units",
            remedy=_PULL_AGAIN,
        )
    return record


def check_copy(
    layout: CacheLayout, manifest: CacheManifest, copy: CopyRecord, state: CacheState
) -> None:
    """Compare a partial copy with the content digest of the whole cache.

    The digest is computed from the commit records in the copy, ``videos.parquet``, and the digests
    of the missing units. Raises CacheCorruptError if the manifest has another one.
    """
    contents = {
        name: (
            summary.fingerprint,
            summary.encoding,
            {int(unit): digest for unit, digest in copy.absent.get(name, {}).items()}
            | {u: commit.content_sha256 for u, commit in state.commits.get(name, {}).items()},
        )
        for name, summary in manifest.teachers.items()
    }
    videos = read_table(layout.videos, VIDEOS_SCHEMA).to_pylist()
    capacity = manifest.row_space.capacity
    found = content_digest(manifest.sampling, capacity, videos, contents)
    if found != manifest.content_digest:
        raise CacheCorruptError(
            f"the partial copy {layout.root} is not of the cache that its manifest names",
            expected=f"content_digest {manifest.content_digest}",
            found=f"content_digest {found}",
            remedy=_PULL_AGAIN,
        )


def describe_copy(copy: CopyRecord, manifest: CacheManifest) -> str:
    """``a partial copy: 1 of 3 units, 1 of 2 teachers``."""
    return (
        f"a partial copy: {len(copy.units)} of {counted(manifest.row_space.units, 'unit')}, "
        f"{len(copy.teachers)} of {counted(len(manifest.teachers), 'teacher')}"
    )
