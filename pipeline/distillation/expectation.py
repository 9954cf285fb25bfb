"""Compares the cache of a training with the one that is expected, field by field."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.records import read_json, write_record
from distinit.schemas.base import SHA256_PATTERN, canonical_json
from distinit.schemas.errors import CacheMismatchError, ConfigError, DistInitError
from distinit.schemas.expectation import ExpectedCache

__all__ = ["cache_as_found", "differences_since", "refuse_unexpected", "write_as_found"]

_NAME = "cache.json"
_RECORD = "cache.json of a run, or the output of `distinit cache info CACHE --json`"


def cache_as_found(cache: TargetCache) -> ExpectedCache:
    """What ``cache`` is, as a later training may expect it."""
    manifest = cache.manifest
    return ExpectedCache(
        format_version=manifest.format_version,
        content_digest=manifest.content_digest,
        corpus_digest=manifest.corpus.digest,
        videos=manifest.corpus.videos,
        frames=manifest.corpus.frames,
        rows=manifest.row_space.rows,
        units=manifest.row_space.units,
        capacity=manifest.row_space.capacity,
        sampling=manifest.sampling,
        teachers=dict(cache.teachers),
    )


def refuse_unexpected(expect: str | None, cache: TargetCache, teacher_ids: tuple[str, ...]) -> None:
    """Raise CacheMismatchError, with every field that differs, for another cache than expected.

    ``expect``: a content digest, or a file with an ExpectedCache; None expects nothing. Raises
    ConfigError if it is neither.
    """
    if expect is None:
        return
    now = cache_as_found(cache)
    if re.fullmatch(SHA256_PATTERN, expect):
        same = expect == now.content_digest
        found = [] if same else [f"content_digest: {now.content_digest or 'none: incomplete'}"]
        wanted = f"content digest {expect}"
    else:
        found = _read(Path(expect)).differences(now, teacher_ids)
        wanted = f"the cache that {expect} describes"
    if found:
        raise CacheMismatchError(
            "the cache is not the expected one",
            expected=wanted,
            found="\n".join(found),
            remedy="use the cache that you expect, or leave --expect out",
        )


def write_as_found(run_root: Path, cache: TargetCache) -> None:
    """Record in the run directory which cache is trained on. Raises StorageError."""
    write_record(cache_as_found(cache), run_root / _NAME)


def differences_since(
    run_root: Path, cache: TargetCache, teacher_ids: tuple[str, ...]
) -> list[str]:
    """What has changed in the cache since the run began; empty if the run did not record it."""
    try:
        there = _read(run_root / _NAME)
    except DistInitError:
        return []
    return there.differences(cache_as_found(cache), teacher_ids)


def _read(path: Path) -> ExpectedCache:
    remedy = f"give a content digest, or a file: {_RECORD}"
    raw = read_json(path, error=ConfigError, remedy=remedy, missing="--expect names no file")
    known = {name: raw[name] for name in ExpectedCache.model_fields if name in raw}
    try:
        return ExpectedCache.model_validate_json(canonical_json(known), strict=True)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        raise ConfigError(
            f"{path} does not describe a cache",
            expected=_RECORD,
            found=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            remedy=remedy,
        ) from invalid
