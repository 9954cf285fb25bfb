"""Hashes local videos, and reports the ones that cannot be read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distinit.pipeline.storage import sha256_file
from distinit.schemas.corpus import VideoFile

__all__ = ["hash_local"]

_HASH_THREADS = 4


def hash_local(
    root: Path, paths: Sequence[str], known: Mapping[str, VideoFile]
) -> tuple[list[VideoFile], dict[str, str]]:
    """Hash the files at ``paths`` (relative to ``root``, or absolute), unless they are ``known``.

    A file with several paths is hashed once. Returns the videos, without ids, and a reason for
    each path that cannot be read.
    """
    problems: dict[str, str] = {}
    found: dict[str, os.stat_result] = {}
    for path in paths:
        try:
            found[path] = _readable(root / path)
        except (OSError, ValueError) as error:
            problems[path] = _reason(error)
    first_of = {(s.st_dev, s.st_ino): path for path, s in reversed(found.items())}
    unique = [p for p, s in found.items() if first_of[s.st_dev, s.st_ino] == p]

    def digest_of(path: str) -> str | OSError:
        try:
            return _digest(root / path, found[path], known.get(path))
        except OSError as error:  # the file may disappear while it is read
            return error

    with ThreadPoolExecutor(_HASH_THREADS) as threads:
        digests = dict(zip(unique, threads.map(digest_of, unique), strict=True))
    files = []
    for path, status in found.items():
        digest = digests[first_of[status.st_dev, status.st_ino]]
        if isinstance(digest, OSError):
            problems[path] = _reason(digest)
        else:
            files.append(VideoFile("", path, digest, status.st_size, status.st_mtime_ns))
    return files, problems


def _readable(path: Path) -> os.stat_result:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("not a regular file")
    if not os.access(path, os.R_OK):
        raise ValueError("no permission to read it")
    return found


def _digest(path: Path, found: os.stat_result, known: VideoFile | None) -> str:
    same = (found.st_size, found.st_mtime_ns)
    if known is not None and (known.size_bytes, known.mtime_ns) == same:
        return known.digest
    if found.st_size == 0:  # not read: files of the kernel such as /proc/kmsg would block
        return hashlib.sha256().hexdigest()
    return sha256_file(path)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"  # as for a URL
    text = error.strerror if isinstance(error, OSError) else str(error)
    return text or type(error).__name__
