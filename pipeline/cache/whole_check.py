"""What is checked of a complete cache as a whole: its sums, its derived files, its checksums."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from distinit.pipeline.cache.cards import croissant_text, readme_text
from distinit.pipeline.cache.confidence import fidelity_report
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.state import CacheState, manifest_of
from distinit.pipeline.cache.tables import read_table, videos_table
from distinit.pipeline.storage import read_bounded
from distinit.pipeline.units import unit_name
from distinit.schemas.base import flatten
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import CacheManifest, PlanSummary
from distinit.schemas.tables import VIDEOS_SCHEMA

__all__ = ["checksum_problems", "missing_rows", "record_problems"]

_MAX_CHECKSUM_BYTES = 1 << 30  # 130 bytes a file
_LINE = re.compile(rb"[0-9a-f]{64}  [^\r\n]+")


def record_problems(
    layout: CacheLayout, manifest: CacheManifest, state: CacheState, plan: PlanSummary
) -> tuple[str, list[str]]:
    """The content digest, recomputed, and what does not follow from the commit records."""
    again = manifest_of(state, manifest.sampling, plan, complete=True)
    said, found = (flatten(m.model_dump(mode="json")) for m in (manifest, again))
    problems = [
        f"manifest.json: {key} {said.get(key)}, recomputed {found.get(key)}"
        for key in sorted(said.keys() | found.keys())
        if said.get(key) != found.get(key)
    ]
    problems += _outcome_problems(state) + _fidelity_problems(state)
    problems += _derived_problems(layout, manifest, state)
    return again.content_digest, problems


def _outcome_problems(state: CacheState) -> list[str]:
    """Each unit decides the videos that the plan ends in it, and all teachers saw the same."""
    planned: dict[int, list[str]] = {}
    for entry in state.plan.entries:
        planned.setdefault(state.plan.last_unit(entry), []).append(entry.video_id)
    problems = []
    first = next(iter(state.commits), "")
    for name, commits in state.commits.items():
        for unit, commit in commits.items():
            where, other = f"{unit_name(unit)} of {name}", state.commits[first][unit]
            if [video.video_id for video in commit.videos] != planned.get(unit, []):
                problems.append(f"{where}: decides other videos than the plan says")
            if (commit.rows, commit.videos) != (other.rows, other.videos):
                problems.append(f"{where}: rows or videos are not those of {first}")
    return problems


def _fidelity_problems(state: CacheState) -> list[str]:
    problems = []
    for name, record in state.records.items():
        sums = (c.fidelity for _, c in sorted(state.commits[name].items()) if c.fidelity)
        if record.fidelity != fidelity_report(sums):
            problems.append(f"teachers/{name}/teacher.json: fidelity is not that of the commits")
    return problems


def _derived_problems(layout: CacheLayout, manifest: CacheManifest, state: CacheState) -> list[str]:
    """videos.parquet and the cards are made again and compared."""
    problems = []
    try:
        stored = read_table(layout.videos, VIDEOS_SCHEMA)
    except CacheCorruptError as error:
        return [f"videos.parquet: {error.problem}"]
    if not stored.equals(videos_table(state.plan, state.outcomes)):
        problems.append("videos.parquet: contradicts the commit records")
    for path, text in (
        (layout.readme, readme_text(manifest, state)),
        (layout.croissant, croissant_text(layout, manifest, state)),
    ):
        if path.is_file() and not _has_bytes(path, text.encode()):
            problems.append(f"{path.name}: is not what follows from the records")
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
    """manifest-sha256.txt must be, byte for byte, what hashing the files gives.

    Args:
        layout: Paths of the cache.
        names: All files that are to be listed, in order.
        sha256_of: Hashes one of them; None: only the names are compared.
        known: Files that are reported as damaged already.
    """
    file = layout.checksums.name
    if not layout.checksums.exists():
        return [f"{file}: missing"]
    *lines, rest = read_bounded(layout.checksums, _MAX_CHECKSUM_BYTES).split(b"\n")
    if rest or not all(_LINE.fullmatch(line) for line in lines):
        return [f"{file}: has lines that `sha256sum` did not write"]
    if [line[66:] for line in lines] != [name.encode() for name in names]:
        return [f"{file}: lists other files than the cache has, or in another order"]
    if sha256_of is None:
        return []
    return [
        f"{name}: not as {file} says"
        for line, name in zip(lines, names, strict=True)
        if name not in known and sha256_of(name).encode() != line[:64]
    ]


def missing_rows(state: CacheState, rows_of_video: dict[str, int]) -> list[str]:
    """Videos that have other rows than their outcome says: a failed one has none."""
    problems = []
    for video_id, outcome in state.decoded.items():
        rows, wanted = rows_of_video.get(video_id, 0), outcome.rows
        if rows != (wanted if outcome.status == "ok" else 0) or wanted > outcome.frame_count:
            problems.append(
                f"video {video_id}: {rows} rows, {outcome.status}, {wanted} rows of "
                f"{outcome.frame_count} frames recorded"
            )
    return problems
