"""Files that are either whole or absent, and paths that stay inside their folder."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from distinit.schemas.errors import CacheCorruptError, StorageError

__all__ = [
    "PARTIAL_SUFFIX",
    "atomic_path",
    "atomic_write_bytes",
    "fsync_dir",
    "fsync_file",
    "safe_join",
    "sha256_file",
    "storage_errors",
]

PARTIAL_SUFFIX = ".partial"

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk, then run the same command again",
    errno.EDQUOT: "your disk quota is used up: free some space, then run the same command again",
    errno.EFBIG: "the file size limit is reached (`ulimit -f`): raise it, then run it again",
    errno.EIO: "the disk reports a fault: look at it (`dmesg`), then run the same command again",
    errno.ENOTDIR: "a part of that path is a file: choose another folder",
    errno.EEXIST: "there is a file of that name: choose another folder",
    errno.EROFS: "the file system is read-only: choose a folder you can write to",
    errno.EACCES: "you may not write there: change the permissions or choose another folder",
    errno.EPERM: "you may not write there: change the permissions or choose another folder",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a refusal of the disk (full, read-only, no permission) into a StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise StorageError(
            f"cannot write {path}",
            found=os.strerror(error.errno),  # libraries embellish strerror
            remedy=_REMEDIES[error.errno],
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a ``.partial`` sibling to write; on success it is synced and renamed to ``path``.

    On an error the partial file is removed and ``path`` is as it was.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            fsync_file(partial)
            partial.replace(path)
            fsync_dir(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old bytes or all the new ones."""
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def fsync_file(path: Path) -> None:
    """Flush one file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_dir(path: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power cut."""
    fsync_file(path)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_join(root: Path, relative: str) -> Path:
    """``root / relative``, refusing what a hostile manifest could smuggle in.

    Raises CacheCorruptError for absolute paths, ``..`` and symlinks that leave ``root``.
    """
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or not relative:
        raise CacheCorruptError(
            "a record names a path outside its own folder",
            expected=f"a relative path below {root}",
            found=repr(relative),
            remedy="do not use this folder; ask its sender for a clean copy",
        )
    joined = root / relative
    if not joined.resolve().is_relative_to(root.resolve()):
        raise CacheCorruptError(
            "a link in the folder leads outside of it",
            expected=f"files below {root}",
            found=f"{relative} -> {joined.resolve()}",
            remedy="do not use this folder; ask its sender for a clean copy",
        )
    return joined
