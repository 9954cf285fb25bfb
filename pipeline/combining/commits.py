"""The commit record of one unit of a derived cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import UnitGroup
from distinit.pipeline.cache.unit import StagedTeacher, StagedUnit
from distinit.pipeline.combining.blueprint import Blueprint, DerivedVideo, Origin
from distinit.pipeline.combining.rows import RowReader
from distinit.pipeline.records import file_entry
from distinit.schemas.cache_format import CACHE_FORMAT_MINOR
from distinit.schemas.feature_sums import FeatureFidelitySums
from distinit.schemas.manifest import FidelitySums, UnitCommit
from distinit.schemas.teacher import TeacherRecord

__all__ = ["derived_commit"]


class _Losses(NamedTuple):
    """Those keys of a commit that say what encoding and arithmetic changed."""

    fidelity: FidelitySums | None = None
    precision_loss: FidelitySums | None = None
    feature_fidelity: FeatureFidelitySums | None = None
    feature_precision_loss: FeatureFidelitySums | None = None


def derived_commit(
    layout: CacheLayout,
    blueprint: Blueprint,
    readers: Sequence[RowReader],
    group: UnitGroup,
    staged: StagedUnit,
    record: TeacherRecord,
) -> UnitCommit:
    """The record of a unit whose files are in their places."""
    teacher = staged.teachers[record.id]
    frames = layout.frames(staged.unit)
    files = {path: entry for path, (_, entry) in teacher.files.items()}
    files[frames] = file_entry(frames)
    videos = [blueprint.videos[entry.video_id] for entry in group.videos]
    ending = [e.video_id for e in group.videos if blueprint.plan.last_unit(e) == staged.unit]
    losses = _losses(blueprint, readers, group, staged, record)
    measured = losses.fidelity is not None and losses.fidelity.measured_against is not None
    return UnitCommit.sealed(
        format_minor=CACHE_FORMAT_MINOR if measured else 0,
        unit=staged.unit,
        teacher_fingerprint=record.fingerprint,
        rows=staged.rows,
        files={layout.relative(path): entry for path, entry in sorted(files.items())},
        content_sha256=teacher.content_sha256,
        videos=tuple(blueprint.videos[video_id].outcome for video_id in ending),
        unanswered=tuple(v.video_id for v in videos if record.id in v.unanswered),
        refused={v.video_id: v.refused[record.id] for v in videos if record.id in v.refused},
        answers=teacher.answers,
        **losses._asdict(),
    )


def _losses(
    blueprint: Blueprint,
    readers: Sequence[RowReader],
    group: UnitGroup,
    staged: StagedUnit,
    record: TeacherRecord,
) -> _Losses:
    """What the encoding changed, if it is known for exactly the rows of this unit.

    Sums of parts of a unit are not known: then there are none.
    """
    teacher: StagedTeacher = staged.teachers[record.id]
    if not staged.rows or record.id in blueprint.vocabularies:
        return _Losses(teacher.fidelity)
    encodings = {
        readers[number].source.records[there].encoding
        for number, there in enumerate(blueprint.teacher_ids[record.id])
        if there is not None
    }
    if encodings != {record.encoding}:
        (source,) = encodings
        against = {"measured_against": source}
        return _Losses(
            fidelity=teacher.fidelity and teacher.fidelity.model_copy(update=against),
            feature_fidelity=teacher.feature_fidelity
            and teacher.feature_fidelity.model_copy(update=against),
        )
    copied = _copied_unit(blueprint, readers, group, staged, record)
    return _Losses(*(getattr(copied, key, None) for key in _Losses._fields))


def _copied_unit(
    blueprint: Blueprint,
    readers: Sequence[RowReader],
    group: UnitGroup,
    staged: StagedUnit,
    record: TeacherRecord,
) -> UnitCommit | None:
    """The commit of the source's unit that has exactly the rows of this unit, if there is one."""
    found: set[tuple[int, int]] = set()
    for entry in group.videos:
        video = blueprint.videos[entry.video_id]
        if video.outcome.status != "ok":
            continue
        origin = video.targets[record.id]
        if origin is None:
            return None
        capacity = blueprint.plan.capacity
        begin = max(staged.unit * capacity - entry.first_row, 0)
        end = min((staged.unit + 1) * capacity - entry.first_row, _rows(readers, video))
        found |= {
            (origin.source, unit) for unit in _units(readers[origin.source], origin, begin, end)
        }
    if len(found) != 1:
        return None
    ((source, unit),) = found
    there = blueprint.teacher_ids[record.id][source]
    commit = readers[source].source.state.commits[there or ""][unit]
    return commit if commit.rows == staged.rows else None


def _rows(readers: Sequence[RowReader], video: DerivedVideo) -> int:
    return readers[video.origin.source].extent(video.origin.video_id)[1]


def _units(reader: RowReader, origin: Origin, begin: int, end: int) -> Iterator[int]:
    """Units of the source that hold the rows ``begin .. end - 1`` of a video."""
    if begin < end:
        first, _ = reader.extent(origin.video_id)
        capacity = reader.source.state.plan.capacity
        yield from range((first + begin) // capacity, (first + end - 1) // capacity + 1)
