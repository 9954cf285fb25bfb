"""Opening a cache for writing: damage is found before anything is written on top of it.

What follows from something else that is sound is made again (the plan, a teacher's record), units
with missing or cut files go back to the work that is to be done, and all else is refused: writing
on would turn damage into a cache that verifies.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from distinit.pipeline.cache.digest import corpus_digest, plan_summary
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import PlannedVideo, UnitPlan, choose_capacity, plan_units
from distinit.pipeline.cache.records import read_teacher
from distinit.pipeline.cache.state import summary_of
from distinit.pipeline.cache.tables import plan_of, plan_table, read_table, write_table
from distinit.pipeline.cache.tree import list_tree
from distinit.pipeline.records import write_record
from distinit.pipeline.storage import PARTIAL_SUFFIX
from distinit.schemas.base import differences
from distinit.schemas.errors import CacheCorruptError, CacheError, CacheMismatchError
from distinit.schemas.manifest import CacheManifest, CorpusSummary, PlanSummary, RowSpace
from distinit.schemas.tables import PLAN_SCHEMA
from distinit.schemas.teacher import TeacherRecord, identity_differences
from distinit.schemas.video import SamplingConfig

__all__ = [
    "check_content",
    "check_same",
    "check_same_teacher",
    "check_teachers",
    "create_cache",
    "open_plan",
    "read_sound_plan",
    "read_teachers",
    "sweep",
]

_VIDEO_ID = r"^[0-9a-f]{16}(-[1-9][0-9]*)?$"  # the first digits of the video's digest
_DIGEST = r"^[0-9a-f]{64}$"
_COPY = "restore it from a copy of the cache, or give a new cache folder"

_PRIVATE = {".lock", ".fence", ".staging"}
_WRITTEN_FIRST = ("plan.parquet", "manifest.json")
"""The first files of a cache: a killed writer may have left parts of them, and no manifest."""


def create_cache(
    layout: CacheLayout,
    videos: Sequence[PlannedVideo],
    sampling: SamplingConfig,
    unit_rows: int | None,
) -> None:
    """Persist the plan, then the manifest: from then on the folder is a cache."""
    names = (path.name for path in layout.root.iterdir())
    others = [name for name in names if not _may_precede_manifest(name)]
    if others:
        kind = CacheCorruptError if "teachers" in others else CacheError
        raise kind(
            f"{layout.root} has content but no manifest.json",
            expected="an empty folder or a target cache",
            found=", ".join(sorted(others)[:5]),
            remedy="choose another folder, or restore manifest.json from a copy of the cache",
        )
    capacity = unit_rows or choose_capacity(sum(video.rows for video in videos))
    plan = plan_units(videos, capacity)
    table = plan_table(plan)
    write_table(table, layout.plan)
    manifest = CacheManifest(
        corpus=CorpusSummary(
            digest=corpus_digest(v.digest for v in videos), videos=len(videos), failed=0, frames=0
        ),
        sampling=sampling,
        row_space=RowSpace(capacity=capacity, units=plan.units, rows=0),
        plan=plan_summary(table),
        complete=False,
        content_digest="",
    )
    write_record(manifest, layout.manifest)


def _may_precede_manifest(name: str) -> bool:
    is_partial = name.startswith(_WRITTEN_FIRST) and name.endswith(PARTIAL_SUFFIX)
    return name in _PRIVATE or name == "plan.parquet" or is_partial


def sweep(layout: CacheLayout) -> None:
    """Remove what killed writers left. The caller holds the lock, so no writer is alive."""
    shutil.rmtree(layout.staging, ignore_errors=True)
    for name in list_tree(layout).files:
        if name.endswith(PARTIAL_SUFFIX):
            (layout.root / name).unlink(missing_ok=True)


def check_teachers(teachers: Mapping[str, TeacherRecord]) -> None:
    for name, record in teachers.items():
        if record.id != name or record.fingerprint != record.identity.fingerprint:
            raise CacheError(
                f"the record of teacher {name} does not match itself",
                expected=(name, record.identity.fingerprint),
                found=(record.id, record.fingerprint),
            )


def check_same(manifest: CacheManifest, sampling: SamplingConfig, unit_rows: int | None) -> None:
    if manifest.sampling != sampling:
        raise CacheMismatchError(
            "the cache was made with another sampling",
            expected=str(manifest.sampling),
            found=str(sampling),
            remedy="use the sampling of the cache, or a new cache folder",
        )
    if unit_rows is not None and manifest.row_space.capacity != unit_rows:
        raise CacheMismatchError(
            "the cache was made with another unit size",
            expected=f"unit_rows {manifest.row_space.capacity}",
            found=f"unit_rows {unit_rows}",
            remedy="leave unit_rows out, or use a new cache folder",
        )


def check_same_teacher(stored: TeacherRecord, asked: TeacherRecord) -> None:
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


def read_sound_plan(layout: CacheLayout, manifest: CacheManifest) -> tuple[UnitPlan, PlanSummary]:
    """The plan that the manifest names. Raises CacheCorruptError if it is another, or damaged."""
    table = read_table(layout.plan, PLAN_SCHEMA)
    found, pinned = plan_summary(table), manifest.plan
    if found.digest not in (pinned.digest, pinned.next_digest):
        raise CacheCorruptError(
            f"{layout.plan} is not the plan that the manifest names",
            expected=f"digest {pinned.digest}",
            found=f"digest {found.digest}",
            remedy="run the same `distinit extract` again: it makes the plan again where the "
            f"videos allow it; or {_COPY}",
        )
    plan = plan_of(table, layout.plan)
    _check_ids(layout, table)
    if found.digest == pinned.digest:
        _check_against_manifest(layout, plan, manifest)
    return plan, found


def _check_ids(layout: CacheLayout, table: pa.Table) -> None:
    """Raise CacheCorruptError unless every video is named after its digest."""
    ids, digests = table.column("video_id"), table.column("digest")
    sound = pc.and_(
        pc.match_substring_regex(ids, _VIDEO_ID), pc.match_substring_regex(digests, _DIGEST)
    )
    same = pc.equal(pc.utf8_slice_codeunits(ids, 0, 16), pc.utf8_slice_codeunits(digests, 0, 16))
    sound = pc.and_(sound, same)
    if table.num_rows and not pc.all(sound).as_py():
        at = pc.index(sound, False).as_py()
        raise CacheCorruptError(
            f"{layout.plan} has a video that is not named after its digest",
            expected="the first 16 digits of its sha256, and -N for further files of these bytes",
            found=f"{ids[at].as_py()} for {digests[at].as_py()}",
            remedy=_COPY,
        )


def _check_against_manifest(layout: CacheLayout, plan: UnitPlan, manifest: CacheManifest) -> None:
    digests = [entry.digest for entry in plan.latest.values()]
    space, corpus = manifest.row_space, manifest.corpus
    said = (space.capacity, space.units, corpus.videos + corpus.gone, corpus.digest)
    found = (plan.capacity, plan.units, len(digests), corpus_digest(digests))
    if said != found:
        text = "{1} units of {0} rows, {2} videos, corpus digest {3}"
        raise CacheCorruptError(
            f"{layout.manifest} contradicts plan.parquet",
            expected=text.format(*found),
            found=text.format(*said),
            remedy=_COPY,
        )


def open_plan(
    layout: CacheLayout, manifest: CacheManifest, videos: Sequence[PlannedVideo]
) -> tuple[UnitPlan, PlanSummary, str]:
    """The plan, and "" or what is wrong with the file: then it is made from ``videos`` again.

    Raises CacheCorruptError where they do not give the rows that the manifest names: they are
    others, or they came to the cache one after another.
    """
    try:
        return *read_sound_plan(layout, manifest), ""
    except CacheCorruptError as error:
        problem = error.problem
    plan = plan_units(videos, manifest.row_space.capacity)
    found = plan_summary(plan_table(plan))
    if found.rows_digest != manifest.plan.rows_digest:
        raise CacheCorruptError(
            f"{layout.plan} is damaged, and the given videos do not give it again",
            expected=f"rows_digest {manifest.plan.rows_digest}, as the manifest says",
            found=f"rows_digest {found.rows_digest} of {len(videos)} videos; the file: {problem}",
            remedy="give exactly the videos that the cache was created from, if none came later; "
            f"else {_COPY}",
        )
    return plan, found, problem


def read_teachers(
    layout: CacheLayout, manifest: CacheManifest, asked: Mapping[str, TeacherRecord]
) -> tuple[dict[str, TeacherRecord], list[str]]:
    """The teachers of the cache, and what was repaired: a damaged record is written again from
    the teacher that is asked for, if it is the one of the manifest in every field.

    Raises CacheCorruptError for a damaged record that nothing gives again.
    """
    records, repairs = {}, []
    for name, summary in manifest.teachers.items():
        problem = ""
        try:
            record = read_teacher(layout, name)
            if summary_of(record, summary.units_committed) != summary:
                problem = "it is not the record that the manifest names"
        except CacheCorruptError as error:
            problem = error.problem
        if problem:
            given = asked.get(name)
            if given is None or summary_of(given, summary.units_committed) != summary:
                raise CacheCorruptError(
                    f"{layout.teacher_record(name)} is damaged",
                    expected=f"the record of fingerprint {summary.fingerprint}, and digest "
                    f"{summary.record_sha256} without its fidelity",
                    found=problem,
                    remedy="name this teacher in the command exactly as when it was added (same "
                    f"settings, same software); or {_COPY}",
                )
            record = given
            write_record(record, layout.teacher_record(name))
            repairs.append(f"teacher {name}: its record was damaged; it is written again")
        records[name] = record
    return records, repairs


def check_content(layout: CacheLayout, before: CacheManifest, now: CacheManifest) -> None:
    """Raise CacheCorruptError if a finished cache does not say any more what it said."""
    if before.complete and before.content_digest != now.content_digest:
        raise CacheCorruptError(
            f"{layout.manifest} contradicts the commit records",
            expected=f"content digest {before.content_digest}, as the manifest says",
            found=f"content digest {now.content_digest or 'of an incomplete cache'}",
            remedy="restore the manifest and the commit records from a copy of the cache, or give "
            "a new cache folder",
        )
