"""Pulls a cache, for tests of what a pull accepts."""

from __future__ import annotations

from pathlib import Path

from helpers.progress import RecordingProgress

from distinit.pipeline.cache.copies import Selection
from distinit.pipeline.cache.pull import Pulled, pull_cache

__all__ = ["files_of", "pull"]


def pull(
    source: object, target: Path, selection: Selection | None = None, expect: str | None = None
) -> Pulled:
    return pull_cache(
        str(source),
        target,
        selection or Selection(),
        workers=4,
        expect=expect,
        progress=RecordingProgress(),
    )


def files_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
