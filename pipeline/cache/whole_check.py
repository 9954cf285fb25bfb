"""Checks of a complete cache as a whole: its sums, its derived files, its checksums."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from distinit.pipeline.cache.cards import croissant_text, readme_text
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.state import CacheState, losses_of, manifest_of
from distinit.pipeline.cache.tables import read_table, videos_table
from distinit.pipeline.storage import read_bounded
from distinit.pipeline.units import unit_name
from distinit.schemas.base import flatten
from distinit.schemas.cache_format import CACHE_FORMAT_MINOR
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import CacheManifest, PlanSummary
from distinit.schemas.tables import VIDEOS_SCHEMA
from distinit.schemas.wording import first_names

__all__ = [
    "checksum_problems",
    "listed_names",
    "record_problems",
    "row_problems",
    "version_notes",
]

_MAX_CHECKSUM_BYTES = 1 << 30  # 130 bytes per file
_LINE = re.compile(rb"[0-9a-f]{64}  [^\r\n]+")


def record_problems(
    layout: CacheLayout, manifest: CacheManifest, state: CacheState, plan: PlanSummary
) -> tuple[str, list[str]]:
    """The recomputed content digest, and contradictions between manifest and commit records."""
    recomputed = manifest_of(
        state, manifest.sampling, plan, complete=True, derived_from=manifest.derived_from
    )
    stated_only = {"format_minor": manifest.format_minor, "provenance": manifest.provenance}
    recomputed = recomputed.model_copy(update=stated_only)
    stated, found = (flatten(m.model_dump(mode="json")) for m in (manifest, recomputed))
    problems = [
        f"manifest.json: {key} {stated.get(key)}, recomputed {found.get(key)}"
        for key in sorted(stated.keys() | found.keys())
        if stated.get(key) != found.get(key)
    ]
    problems += _outcome_problems(state) + _fidelity_problems(state)
    problems += _derived_problems(layout, manifest, state)
    return recomputed.content_digest, problems


def _outcome_problems(state: CacheState) -> list[str]:
    """A unit must have an outcome for each video that ends in it, the same for all teachers."""
    planned: dict[int, list[str]] = {}
    for entry in state.plan.entries:
        planned.setdefault(state.plan.last_unit(entry), []).append(entry.video_id)
    problems = []
    first = next(iter(state.commits), "")
    for name, commits in state.commits.items():
        for unit, commit in commits.items():
            where, other = f"{unit_name(unit)} of {name}", state.commits[first][unit]
            if [video.video_id for video in commit.videos] != planned.get(unit, []):
                problems.append(f"{where}: its videos are not those of the plan")
            if (commit.rows, commit.videos) != (other.rows, other.videos):
                problems.append(f"{where}: rows or videos differ from those of {first}")
    return problems


def _fidelity_problems(state: CacheState) -> list[str]:
    problems = []
    for name, record in state.records.items():
        problems += [
            f"teachers/{name}/teacher.json: its {key} is not that of the commits"
            for key, report in losses_of(state.commits[name]).items()
            if getattr(record, key) != report
        ]
    return problems


def _derived_problems(layout: CacheLayout, manifest: CacheManifest, state: CacheState) -> list[str]:
    """Compare videos.parquet and the cards with what the records give.

    The texts of the cards are known for one minor version only.
    """
    problems = []
    try:
        stored = read_table(layout.videos, VIDEOS_SCHEMA)
    except CacheCorruptError as error:
        return [f"videos.parquet: {error.problem}"]
    if not stored.equals(videos_table(state.plan, state.outcomes)):
        problems.append("videos.parquet: contradicts the commit records")
    if manifest.format_minor != CACHE_FORMAT_MINOR:
        return problems
    for path, text in (
        (layout.readme, readme_text(manifest, state)),
        (layout.croissant, croissant_text(layout, manifest, state)),
    ):
        if path.is_file() and not _has_bytes(path, text.encode()):
            problems.append(f"{path.name}: differs from what the records give")
    return problems


def _has_bytes(path: Path, data: bytes) -> bool:
    try:
        return read_bounded(path, len(data)) == data
    except OSError:  # larger, or unreadable
        return False


def checksum_problems(
    layout: CacheLayout,
    names: Sequence[str],
    sha256_of: Callable[[str], str] | None,
    known: Collection[str],
) -> list[str]:
    """Problems of manifest-sha256.txt, which must be exactly what hashing the files gives.

    Args:
        layout: Paths of the cache.
        names: All files that it must list, in order.
        sha256_of: Hashes one of them; None compares only the names.
        known: Files that were already reported as damaged.
    """
    file = layout.checksums.name
    if not layout.checksums.exists():
        return [f"{file}: missing"]
    *lines, rest = read_bounded(layout.checksums, _MAX_CHECKSUM_BYTES).split(b"\n")
    if rest or not all(_LINE.fullmatch(line) for line in lines):
        return [f"{file}: has lines that `sha256sum` would not write"]
    if [line[66:] for line in lines] != [name.encode() for name in names]:
        return [f"{file}: does not list the files of the cache in order"]
    if sha256_of is None:
        return []
    return [
        f"{name}: its sha256 is not the one in {file}"
        for line, name in zip(lines, names, strict=True)
        if name not in known and sha256_of(name).encode() != line[:64]
    ]


def listed_names(layout: CacheLayout) -> frozenset[str]:
    """The files that manifest-sha256.txt lists, whatever they are; empty if it cannot be read."""
    try:
        lines = read_bounded(layout.checksums, _MAX_CHECKSUM_BYTES).splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        line[66:].decode("utf-8", "replace") for line in lines if _LINE.fullmatch(line)
    )


def version_notes(manifest: CacheManifest, unknown: Collection[str]) -> list[str]:
    """What cannot be checked in a cache of another minor version than this program writes."""
    if manifest.format_minor == CACHE_FORMAT_MINOR:
        return []
    version = f"{manifest.format_version}.{manifest.format_minor}"
    notes = [f"README.md, croissant.json: of format version {version}: their text is not checked"]
    if manifest.is_newer:
        notes.append(f"keys of records that this program does not know are not checked ({version})")
    if unknown:
        files = first_names(sorted(unknown), 3)
        notes.append(f"{files}: not known to this program, only the sha256 is checked")
    return notes


def row_problems(state: CacheState, rows_of_video: dict[str, int]) -> list[str]:
    """One line per video whose number of rows is not that of its outcome; failed ones have none."""
    problems = []
    for video_id, outcome in state.decoded.items():
        rows, recorded = rows_of_video.get(video_id, 0), outcome.rows
        if rows != (recorded if outcome.status == "ok" else 0) or recorded > outcome.frame_count:
            problems.append(
                f"video {video_id}: {rows} rows, {outcome.status}, {recorded} rows of "
                f"{outcome.frame_count} frames recorded"
            )
    return problems
