"""Lists a receiver's videos, hashes their bytes, and remembers both for a later match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import batched, groupby
from pathlib import Path, PurePosixPath

import pyarrow as pa

from distinit.pipeline.cache.tables import read_table, write_table
from distinit.pipeline.corpus.listing import FoundVideos, find_videos
from distinit.pipeline.corpus.local import hash_local
from distinit.pipeline.progress import Progress
from distinit.pipeline.transport.remote import is_url
from distinit.schemas.corpus import VideoFile
from distinit.schemas.errors import CacheCorruptError, ConfigError
from distinit.schemas.tables import COPIES_SCHEMA

__all__ = ["FoundCopies", "find_copies", "is_relative_path", "list_copies"]

_FILES_NAME = "files.parquet"
_NOT_BELOW = "not a plain path below the folder: move or rename it"
_BATCH = 64  # files; progress is shown in between
_SAVE_BYTES = 64 << 30  # of files that were read since the list was last stored


@dataclass(frozen=True, slots=True)
class FoundCopies:
    """The receiver's videos below ``root``; one file per content, others are left out.

    ``unreadable``: path -> reason.
    """

    root: Path
    files: tuple[VideoFile, ...]
    unreadable: Mapping[str, str]


def is_relative_path(path: str) -> bool:
    """Whether a path names a file below a folder: relative, without ``..`` and odd characters."""
    pure = PurePosixPath(path)
    usable = path.isprintable() and "\\" not in path and path == pure.as_posix()
    return usable and bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts


def find_copies(source: str) -> FoundVideos:
    """Find the videos of a folder, or those of a list of paths, without reading them.

    Raises ConfigError for URLs, CorpusError if there are no videos.
    """
    found = None if is_url(source) else find_videos(source)
    if found is None or found.urls:
        raise ConfigError(
            "videos at URLs cannot be matched",
            expected="a folder of videos, or a list of paths",
            found=source,
            remedy="download the videos first",
        )
    return found


def list_copies(
    found: FoundVideos, preferred: Mapping[str, str], work: Path, progress: Progress
) -> FoundCopies:
    """Hash the bytes of those of the found videos that are new or have changed.

    Args:
        found: What ``find_copies`` gives.
        preferred: Path of each video of the cache -> its digest: of several files with the same
            bytes, the one with the cache's path is taken, else the first.
        work: Folder that keeps the list of files for a later call.
        progress: Shows the files that have been read.

    Files that a mapping file cannot name count as unreadable: outside of the folder, or with odd
    characters in their names. Raises StorageError if ``work`` cannot be written.
    """
    paths = [path for path in found.paths if is_relative_path(path)]
    refused = {p: _NOT_BELOW for p in found.paths if not is_relative_path(p)}
    files, unreadable = _hash_all(found.root, paths, work / _FILES_NAME, progress)
    return FoundCopies(
        found.root,
        tuple(_one_per_content(files, preferred)),
        {**found.refused, **refused, **unreadable},
    )


def _hash_all(
    root: Path, paths: Sequence[str], stored: Path, progress: Progress
) -> tuple[list[VideoFile], dict[str, str]]:
    known = _read_files(stored)
    files: list[VideoFile] = []
    unreadable: dict[str, str] = {}
    new_bytes = 0
    progress.start("hash files", len(paths), "files")
    for batch in batched(paths, _BATCH):
        hashed, problems = hash_local(root, batch, known)
        files += hashed
        unreadable |= problems
        new_bytes += sum(file.size_bytes for file in hashed if known.get(file.path) != file)
        if new_bytes > _SAVE_BYTES:
            _write_files({**known, **{file.path: file for file in files}}, stored)
            new_bytes = 0
        progress.advance(len(batch), unreadable=len(unreadable))
    progress.finish()
    _write_files({file.path: file for file in files}, stored)
    return files, unreadable


def _read_files(path: Path) -> dict[str, VideoFile]:
    """The files of an earlier match, by path; none if their list is missing or damaged."""
    try:
        rows = read_table(path, COPIES_SCHEMA).to_pylist()
    except CacheCorruptError:
        return {}
    return {row["path"]: VideoFile("", **row) for row in rows}


def _write_files(files: Mapping[str, VideoFile], path: Path) -> None:
    names = COPIES_SCHEMA.names
    rows = [{name: getattr(file, name) for name in names} for file in files.values()]
    write_table(pa.Table.from_pylist(rows, schema=COPIES_SCHEMA), path)


def _one_per_content(files: Sequence[VideoFile], preferred: Mapping[str, str]) -> list[VideoFile]:
    kept = []
    for digest, same in groupby(
        sorted(files, key=lambda f: (f.digest, f.path)), lambda f: f.digest
    ):
        group = list(same)
        named = [file for file in group if preferred.get(file.path) == digest]
        kept.append((named or group)[0])
    return kept
