"""What a receiver knows of the files of a cache before they arrive: sizes, digests, limits."""

from __future__ import annotations

from collections.abc import Mapping

from distinit.pipeline.cache.arrays import shard_bytes
from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.opening import read_valid_plan
from distinit.pipeline.cache.published import PublishedFile
from distinit.pipeline.cache.records import read_manifest, read_teacher
from distinit.pipeline.cache.state import CacheState, read_state, summary_of
from distinit.pipeline.transport.receive import Expected
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import FileEntry

__all__ = ["checked_state", "expected_record", "expected_sized", "sizes_of"]

_REMEDY = "do not use this cache; ask its sender for a clean copy"


def checked_state(layout: CacheLayout) -> CacheState:
    """The records of a complete cache in a folder that may still lack its tables and shards.

    Raises CacheCorruptError unless the content digest that they give is that of the manifest.
    """
    manifest = read_manifest(layout)
    plan, _ = read_valid_plan(layout, manifest)
    records = {name: read_teacher(layout, name) for name in manifest.teachers}
    state = read_state(layout, plan, records)
    for name, record in records.items():
        summary = manifest.teachers[name]
        if summary_of(record, len(state.commits[name])) != summary:
            raise CacheCorruptError(
                f"the manifest and the record of teacher {name} disagree",
                expected=summary.model_dump(),
                found=summary_of(record, len(state.commits[name])).model_dump(),
                remedy=_REMEDY,
            )
    found = state.content_digest(manifest.sampling)
    if not state.complete or found != manifest.content_digest:
        raise CacheCorruptError(
            "the content digest in the manifest is not that of the commit records",
            expected=f"content_digest {manifest.content_digest}",
            found=f"content_digest {found}",
            remedy=_REMEDY,
        )
    return state


def expected_record(file: PublishedFile) -> Expected:
    """A record, whose size is not known before it arrives."""
    return Expected(file.name, file.sha256, file.limit_bytes)


def sizes_of(state: CacheState) -> dict[str, FileEntry]:
    """Size and sha256 of every table and shard, from the commit records."""
    return {
        name: entry
        for commits in state.commits.values()
        for commit in commits.values()
        for name, entry in commit.files.items()
    }


def expected_sized(
    file: PublishedFile, sizes: Mapping[str, FileEntry], state: CacheState, owner: str
) -> Expected:
    """A table or a shard. ``owner``: the cache, for messages.

    Raises CacheCorruptError if the commit records do not have it, have another sha256 than the
    list, or a size that no such file can have.
    """
    entry = sizes.get(file.name)
    limit_bytes = file.limit_bytes
    if file.kind == "shard" and file.teacher is not None:
        record = state.records[file.teacher]
        specs = array_specs(record.encoding, record.identity.classes)
        spec = next(spec for spec in specs if spec.name == file.array)
        limit_bytes = shard_bytes(spec, state.plan.capacity)
    if entry is None or entry.sha256 != file.sha256 or entry.size > limit_bytes:
        raise CacheCorruptError(
            f"{owner}: the records of {file.name} contradict each other",
            expected=f"one sha256, and at most {limit_bytes:,} bytes",
            found="no commit record"
            if entry is None
            else f"sha256 {entry.sha256}, {entry.size:,} bytes; listed with sha256 {file.sha256}",
            remedy=_REMEDY,
        )
    return Expected(file.name, file.sha256, entry.size, entry.size)
