"""Merges caches of the same teachers: the union of their videos, row for row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from distinit.pipeline.combining.agreement import (
    AgreedTeachers,
    agree_on_teachers,
    check_same_sampling,
)
from distinit.pipeline.combining.blueprint import (
    Blueprint,
    common_provenance,
    source_record,
    with_new_ids,
)
from distinit.pipeline.combining.conflicts import Conflicts, find_conflicts
from distinit.pipeline.combining.joining import Joined, candidates_by_digest, join
from distinit.pipeline.combining.rows import RowReader
from distinit.pipeline.combining.source import Source, open_source
from distinit.pipeline.combining.writing import check_out, write_derived
from distinit.pipeline.progress import Progress
from distinit.schemas.combining import MergeResult
from distinit.schemas.derivation import MAX_SOURCES, Derivation
from distinit.schemas.errors import CacheMismatchError, ConfigError
from distinit.schemas.wording import counted, first_names
from distinit.stages.derived_result import derived_fields

__all__ = ["OnConflict", "cache_merge"]

OnConflict = Literal["refuse", "first"]


def cache_merge(
    folders: Sequence[Path],
    out: Path,
    *,
    teachers: Sequence[str] = (),
    on_conflict: OnConflict = "refuse",
    progress: Progress,
) -> MergeResult:
    """Write the union of ``folders`` to ``out``.

    Args:
        folders: Complete caches of one sampling. They are verified before anything is read.
        out: Folder of the new cache; a part of the same merge is continued.
        teachers: Ids of the teachers to keep; none: all.
        on_conflict: What to do if two caches have different rows of one frame.
        progress: Shows the units that are verified, the videos compared and the units copied.

    Raises:
        CacheMismatchError: Sampling or teachers differ, or a teacher lacks videos.
        CacheCorruptError: A source is damaged.
        CacheError: A source is not complete, or ``out`` holds something else.
        ConfigError: Fewer than two sources, or a teacher that no source has.
    """
    if not 2 <= len(folders) <= MAX_SOURCES:
        raise ConfigError(
            "cannot merge this number of caches",
            expected=f"2 to {MAX_SOURCES} folders",
            found=counted(len(folders), "folder"),
            remedy="name at least two caches",
        )
    check_out(out, folders)
    sources = [open_source(folder, progress) for folder in folders]
    check_same_sampling(sources)
    agreed = agree_on_teachers(sources, teachers or None)
    candidates = candidates_by_digest(sources)
    readers = [RowReader(source) for source in sources]
    conflicts = find_conflicts(readers, agreed.ids, candidates, progress)
    if conflicts.count and on_conflict == "refuse":
        return _refused(folders, out, conflicts)
    joined = join(sources, agreed.ids, candidates, conflicts.unlike)
    _check_coverage(joined)
    notes = _notes(sources, agreed, joined)
    derivation = Derivation(
        operation="merge",
        sources=source_record(sources, joined.videos, agreed.ids),
        parameters={"on_conflict": on_conflict, "conflicts": conflicts.count},
        notes=tuple(notes),
    )
    blueprint = Blueprint.of(
        sources, with_new_ids(joined.videos), agreed.records, agreed.ids, derivation
    )
    manifest = write_derived(out, sources, blueprint, progress)
    return MergeResult(
        **derived_fields(out, manifest, [*notes, *_overlap_note(sources, conflicts)]),
        compared=conflicts.compared,
        conflict_count=conflicts.count,
        conflicts=tuple(conflicts.listed),
        folders=tuple(map(str, folders)),
    )


def _refused(folders: Sequence[Path], out: Path, conflicts: Conflicts) -> MergeResult:
    return MergeResult(
        out=str(out),
        content_digest="",
        videos=0,
        failed=0,
        rows=0,
        units=0,
        fidelity={},
        notes=(),
        compared=conflicts.compared,
        conflict_count=conflicts.count,
        conflicts=tuple(conflicts.listed),
        folders=tuple(map(str, folders)),
    )


def _check_coverage(joined: Joined) -> None:
    """A teacher of the result must have targets for all of its videos."""
    if joined.lacking:
        lines = [
            f"teacher {name}: {counted(len(paths), 'video')} without targets: {first_names(paths)}"
            for name, paths in joined.lacking.items()
        ]
        raise CacheMismatchError(
            "a teacher does not have targets for all videos of the merged cache",
            expected="targets of each teacher for each video that was decoded",
            found="\n".join(lines),
            remedy="name the other teachers with --teacher, or extract what is missing first",
        )


def _notes(sources: Sequence[Source], agreed: AgreedTeachers, joined: Joined) -> list[str]:
    notes = list(agreed.renamed)
    notes += [
        f"{name}: the sources differ, see derived_from; state it with `distinit cache describe`"
        for name in common_provenance(sources)[1]
    ]
    if joined.recovered:
        count = counted(len(joined.recovered), "video")
        notes.append(
            f"{count} failed in one source and came from another: {first_names(joined.recovered)}"
        )
    return [note[:1_000] for note in notes[:1_000]]


def _overlap_note(sources: Sequence[Source], conflicts: Conflicts) -> list[str]:
    if not conflicts.compared or conflicts.count:
        return []
    return [f"{counted(conflicts.compared, 'row')} of overlapping videos are equal in all caches"]
