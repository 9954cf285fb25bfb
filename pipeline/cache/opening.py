"""Opens a cache for writing, and detects damage before anything is written.

Files that can be rebuilt from intact ones are written again (the plan, the record of a teacher).
Units with missing or truncated files are extracted again. All other damage is refused: continuing
to write would turn a damaged cache into one that verifies.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from distinit.pipeline.cache.digest import corpus_digest, plan_summary
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import PlannedVideo, UnitPlan, choose_capacity, plan_units
from distinit.pipeline.cache.records import read_manifest, read_teacher
from distinit.pipeline.cache.state import summary_of
from distinit.pipeline.cache.tables import plan_of, plan_table, read_table, write_table
from distinit.pipeline.cache.tree import list_tree
from distinit.pipeline.records import write_record
from distinit.pipeline.storage import PARTIAL_SUFFIX
from distinit.schemas.base import differences
from distinit.schemas.derivation import Derivation
from distinit.schemas.errors import CacheCorruptError, CacheError, CacheMismatchError
from distinit.schemas.manifest import (
    CACHE_FORMAT_MINOR,
    CACHE_FORMAT_VERSION,
    CacheManifest,
    CorpusSummary,
    PlanSummary,
    RowSpace,
)
from distinit.schemas.tables import PLAN_SCHEMA
from distinit.schemas.teacher import TeacherRecord, identity_differences
from distinit.schemas.video import SamplingConfig

__all__ = [
    "check_content",
    "check_same_settings",
    "check_same_teacher",
    "check_teachers",
    "check_writable",
    "create_cache",
    "open_plan",
    "read_cache_plan",
    "read_teachers",
    "read_valid_plan",
    "refuse_other_files",
    "remove_leftovers",
    "start_cache",
]

_VIDEO_ID = r"^[0-9a-f]{16}(-[1-9][0-9]*)?$"  # the first 16 digits of the video's digest
_DIGEST = r"^[0-9a-f]{64}$"
_COPY = "restore it from a copy of the cache, or use a new cache folder"

_PRIVATE = {".lock", ".fence", ".staging"}
_WRITTEN_FIRST = ("plan.parquet", "manifest.json")
"""The first files of a cache: a killed writer may leave parts of them and no manifest."""


def create_cache(
    layout: CacheLayout,
    videos: Sequence[PlannedVideo],
    sampling: SamplingConfig,
    unit_rows: int | None,
) -> None:
    """Write the plan, then the manifest, which makes the folder a cache.

    Raises as ``refuse_other_files``.
    """
    refuse_other_files(layout)
    capacity = unit_rows or choose_capacity(sum(video.rows for video in videos))
    start_cache(layout, plan_units(videos, capacity), sampling)


def refuse_other_files(layout: CacheLayout) -> None:
    """Raise CacheError if the folder of a new cache holds other files.

    Raises CacheCorruptError if it holds teachers but no manifest.
    """
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


def start_cache(
    layout: CacheLayout,
    plan: UnitPlan,
    sampling: SamplingConfig,
    derived_from: Derivation | None = None,
) -> None:
    """Write the plan, then the manifest of a cache without teachers."""
    table = plan_table(plan)
    write_table(table, layout.plan)
    videos = plan.latest.values()
    present = sum(video.in_corpus for video in videos)
    manifest = CacheManifest(
        format_minor=CACHE_FORMAT_MINOR,
        corpus=CorpusSummary(
            digest=corpus_digest(video.digest for video in videos),
            videos=present,
            failed=0,
            frames=0,
            gone=len(videos) - present,
        ),
        sampling=sampling,
        row_space=RowSpace(capacity=plan.capacity, units=plan.units, rows=0),
        plan=plan_summary(table),
        complete=False,
        content_digest="",
        derived_from=derived_from,
    )
    write_record(manifest, layout.manifest)


def _may_precede_manifest(name: str) -> bool:
    is_partial = name.startswith(_WRITTEN_FIRST) and name.endswith(PARTIAL_SUFFIX)
    return name in _PRIVATE or name == "plan.parquet" or is_partial


def remove_leftovers(layout: CacheLayout) -> None:
    """Remove what killed writers left. The caller holds the lock, so no writer is alive."""
    shutil.rmtree(layout.staging, ignore_errors=True)
    for name in list_tree(layout).files:
        if name.endswith(PARTIAL_SUFFIX):
            (layout.root / name).unlink(missing_ok=True)


def check_teachers(teachers: Mapping[str, TeacherRecord]) -> None:
    """Raise CacheError unless every record has its id and the fingerprint of its identity."""
    for name, record in teachers.items():
        if record.id != name or record.fingerprint != record.identity.fingerprint:
            raise CacheError(
                f"the record of teacher {name} contradicts itself",
                expected=(name, record.identity.fingerprint),
                found=(record.id, record.fingerprint),
            )


def check_writable(layout: CacheLayout, manifest: CacheManifest) -> None:
    """Raise CacheError for a cache of a newer minor version: its unknown keys would be lost."""
    if manifest.is_newer:
        raise CacheError(
            f"{layout.root} is read, but not changed: it has a newer format",
            expected=f"format version at most {CACHE_FORMAT_VERSION}.{CACHE_FORMAT_MINOR}",
            found=f"{manifest.format_version}.{manifest.format_minor}",
            remedy="use the version of distinit that wrote it, or a new cache folder",
        )


def check_same_settings(
    manifest: CacheManifest, sampling: SamplingConfig, unit_rows: int | None
) -> None:
    """Raise CacheMismatchError if the cache has another sampling or unit size."""
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


def check_same_teacher(stored: TeacherRecord, requested: TeacherRecord) -> None:
    """Raise CacheMismatchError unless both records describe the same teacher and encoding."""
    found = identity_differences(stored.identity, requested.identity)
    found += differences(
        *(record.model_dump(include={"encoding", "precision"}) for record in (stored, requested))
    )
    if found:
        raise CacheMismatchError(
            f"the cache has another teacher named {stored.id}",
            expected="the teacher that the cache was made with",
            found="\n".join(found),
            remedy="give the new teacher another id (--set teachers.0.id=NAME), or use a new "
            "cache folder",
        )


def read_valid_plan(layout: CacheLayout, manifest: CacheManifest) -> tuple[UnitPlan, PlanSummary]:
    """The plan that the manifest names. Raises CacheCorruptError if it differs or is damaged."""
    table = read_table(layout.plan, PLAN_SCHEMA)
    found, pinned = plan_summary(table), manifest.plan
    if found.digest not in (pinned.digest, pinned.next_digest):
        raise CacheCorruptError(
            f"{layout.plan} is not the plan that the manifest names",
            expected=f"digest {pinned.digest}",
            found=f"digest {found.digest}",
            remedy="rerun the same `distinit extract`, which rebuilds the plan if the videos are "
            f"unchanged; or {_COPY}",
        )
    plan = plan_of(table, layout.plan)
    _check_ids(layout, table)
    if found.digest == pinned.digest:
        _check_against_manifest(layout, plan, manifest)
    return plan, found


def _check_ids(layout: CacheLayout, table: pa.Table) -> None:
    """Raise CacheCorruptError unless every video is named after its digest."""
    ids, digests = table.column("video_id"), table.column("digest")
    valid = pc.and_(
        pc.match_substring_regex(ids, _VIDEO_ID), pc.match_substring_regex(digests, _DIGEST)
    )
    same = pc.equal(pc.utf8_slice_codeunits(ids, 0, 16), pc.utf8_slice_codeunits(digests, 0, 16))
    valid = pc.and_(valid, same)
    if table.num_rows and not pc.all(valid).as_py():
        at = pc.index(valid, False).as_py()
        raise CacheCorruptError(
            f"{layout.plan} has a video that is not named after its digest",
            expected="the first 16 digits of its sha256, with -N for further copies",
            found=f"{ids[at].as_py()} for {digests[at].as_py()}",
            remedy=_COPY,
        )


def _check_against_manifest(layout: CacheLayout, plan: UnitPlan, manifest: CacheManifest) -> None:
    digests = [entry.digest for entry in plan.latest.values()]
    space, corpus = manifest.row_space, manifest.corpus
    stated = (space.capacity, space.units, corpus.videos + corpus.gone, corpus.digest)
    found = (plan.capacity, plan.units, len(digests), corpus_digest(digests))
    if stated != found:
        text = "{1} units of {0} rows, {2} videos, corpus digest {3}"
        raise CacheCorruptError(
            f"{layout.manifest} contradicts plan.parquet",
            expected=text.format(*found),
            found=text.format(*stated),
            remedy=_COPY,
        )


def open_plan(
    layout: CacheLayout, manifest: CacheManifest, videos: Sequence[PlannedVideo]
) -> tuple[UnitPlan, PlanSummary, str]:
    """The plan, its summary, and the problem with its file, "" if there is none.

    With a problem, the plan is rebuilt from ``videos``. Raises CacheCorruptError if that does not
    give the rows that the manifest names: the videos are different ones, or they were added to
    the cache in several runs.
    """
    try:
        return *read_valid_plan(layout, manifest), ""
    except CacheCorruptError as error:
        problem = error.problem
    plan = plan_units(videos, manifest.row_space.capacity)
    found = plan_summary(plan_table(plan))
    if found.rows_digest != manifest.plan.rows_digest:
        raise CacheCorruptError(
            f"{layout.plan} is damaged and cannot be rebuilt from the given videos",
            expected=f"rows_digest {manifest.plan.rows_digest}, as the manifest says",
            found=f"rows_digest {found.rows_digest} of {len(videos)} videos; the file: {problem}",
            remedy="give exactly the videos that the cache was created from, if none were added "
            f"later; otherwise {_COPY}",
        )
    return plan, found, problem


def read_cache_plan(root: Path) -> UnitPlan | None:
    """The stored plan of a cache; None if the cache does not exist, or if its plan is damaged.

    Then all videos must be probed: ``CacheWriter.create_or_open`` rebuilds the plan from them.
    """
    layout = CacheLayout(root)
    if not layout.manifest.exists():
        return None
    with suppress(CacheCorruptError):
        return read_valid_plan(layout, read_manifest(layout))[0]
    return None


def read_teachers(
    layout: CacheLayout, manifest: CacheManifest, requested: Mapping[str, TeacherRecord]
) -> tuple[dict[str, TeacherRecord], list[str]]:
    """The teachers of the cache, and messages about repaired records.

    A damaged record is written again from the ``requested`` teacher of that name, if it equals
    the one of the manifest in every field. Raises CacheCorruptError if there is no such teacher.
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
            given = requested.get(name)
            if given is not None and summary_of(given, summary.units_committed) != summary:
                # Caches that are older than this field do not have it.
                given = given.model_copy(update={"recipe": None})
            if given is None or summary_of(given, summary.units_committed) != summary:
                raise CacheCorruptError(
                    f"{layout.teacher_record(name)} is damaged",
                    expected=f"the record with fingerprint {summary.fingerprint}, and digest "
                    f"{summary.record_sha256} without its fidelity",
                    found=problem,
                    remedy="name this teacher in the command exactly as when it was added (same "
                    f"settings, same software); or {_COPY}",
                )
            record = given
            write_record(record, layout.teacher_record(name))
            repairs.append(f"teacher {name}: its record was damaged and has been written again")
        records[name] = record
    return records, repairs


def check_content(layout: CacheLayout, before: CacheManifest, now: CacheManifest) -> None:
    """Raise CacheCorruptError if the content digest of a complete cache has changed."""
    if before.complete and before.content_digest != now.content_digest:
        raise CacheCorruptError(
            f"{layout.manifest} contradicts the commit records",
            expected=f"content digest {before.content_digest}, as the manifest says",
            found=f"content digest {now.content_digest or 'of an incomplete cache'}",
            remedy="restore the manifest and the commit records from a copy of the cache, or use "
            "a new cache folder",
        )
