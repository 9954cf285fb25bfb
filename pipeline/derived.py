"""Columns derived from published files: memory-mapped ``.npy`` files that are never published.

They lie under ``$XDG_CACHE_HOME/distinit/<key>/``. The key is a digest of the bytes that they were
derived from. It is computed here, so that the contents of a received file cannot choose a folder.
Memory-mapped columns need address space instead of memory, and all processes of a machine share
them. Damaged columns are derived again; the folder may be deleted at any time.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from distinit.pipeline.records import read_json, write_json
from distinit.pipeline.storage import (
    fsync_dir,
    open_for_writing,
    open_regular,
    storage_errors,
)
from distinit.schemas.errors import StorageError
from distinit.schemas.wording import reason_of, shown

__all__ = [
    "MARKER",
    "columns_are_valid",
    "derive_columns",
    "find_texts",
    "index_folder",
    "is_private",
    "map_column",
    "new_column",
    "release_pages",
]

MARKER = "distinit-derived"
"""A file of this name marks folders that were made by this module and may be replaced."""

_BLOCK_BYTES = 1 << 24
_KEY = re.compile(r"[0-9a-f]{64}")


def index_folder(key: str) -> Path:
    """``$XDG_CACHE_HOME/distinit/<key>``; without that variable, below ``~/.cache``.

    Raises ValueError for a key that is not the hexadecimal text of a sha256.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a sha256: {shown(key)}")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(home) / "distinit" / key


def columns_are_valid(folder: Path, version: int) -> bool:
    """Whether the columns in ``folder`` are complete, undamaged and of this ``version``.

    Folders that another user can write to are not trusted, since they could hold anything.
    """
    try:
        if not (is_private(folder.parent) and is_private(folder)):
            return False
        record = read_json(folder / "index.json", error=StorageError, remedy="")
        return bool(record["version"] == version) and all(
            _checksum(folder / Path(name).name) == stored
            for name, stored in record["files"].items()
        )
    except (OSError, StorageError, KeyError, TypeError, AttributeError, ValueError):
        return False


def is_private(folder: Path) -> bool:
    """Whether only this user (and root) can write there. Raises OSError."""
    status = folder.stat()
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & stat.S_IWOTH


def derive_columns(folder: Path, version: int, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder with columns, which then replaces ``folder``.

    Raises StorageError if the disk cannot be written, or if ``folder`` was not made by this
    function, and whatever ``write`` raises.
    """
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    with storage_errors(folder):
        try:
            _make(partial)
            (partial / MARKER).touch()
            write(partial)
            files = {path.name: _checksum(path) for path in sorted(partial.iterdir())}
            write_json({"version": version, "files": files}, partial / "index.json")
            if columns_are_valid(folder, version):
                return  # another process derived them first
            _remove(folder)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        fsync_dir(folder.parent)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise StorageError(
            f"derived indexes cannot be kept in {folder.parent}",
            expected="a folder that you can write to, with free disk space",
            found=os.strerror(error.errno or errno.EIO),
            remedy="set XDG_CACHE_HOME to such a folder, then run the same command again",
        ) from error


def _remove(folder: Path) -> None:
    """Remove a folder of columns. Raises StorageError if it is anything else."""
    if not os.path.lexists(folder):
        return
    is_ours = is_private(folder.parent) and is_private(folder)
    if folder.is_symlink() or not is_ours or not (folder / MARKER).is_file():
        raise StorageError(
            f"{folder} is in the way: it was not made by distinit, and is not removed",
            expected=f"no such folder, or one with a file {MARKER} where only you can write",
            remedy="check it and move it away, then run the same command again; or set "
            "XDG_CACHE_HOME to another folder",
        )
    shutil.rmtree(folder, ignore_errors=True)


def map_column(folder: Path, name: str) -> np.ndarray:
    """One column, read-only. Raises StorageError if it is missing or damaged."""
    try:
        values = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StorageError(
            f"a derived index cannot be read: {folder / name}.npy",
            expected=f"a column of {folder}",
            found=reason_of(error),
            remedy=f"delete {folder}, then run the same command again",
        ) from error
    # Indexing a plain view is several times faster than indexing np.memmap.
    plain: np.ndarray = values.view(np.ndarray)
    return plain


def new_column(folder: Path, name: str, rows: int, dtype: Any) -> np.ndarray:
    """A memory-mapped column of ``rows`` zeros, to be filled.

    Its disk space is allocated at once: if the disk ran full while the mapped file is written,
    the process would end with a bus error. Raises OSError.
    """
    path = folder / f"{name}.npy"
    if rows == 0:  # an empty file cannot be mapped for writing
        np.save(path, np.zeros(0, dtype), allow_pickle=False)
        return np.zeros(0, dtype)
    values: np.ndarray = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(rows,))
    descriptor = open_for_writing(path)
    try:
        os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    return values


def release_pages(values_N: np.ndarray) -> None:
    """Take the pages of a mapped column out of the resident memory of this process.

    They stay in the page cache of the kernel, changed ones too, and are mapped again when they are
    read. Call it between blocks of a column that is larger than memory. Other arrays are left
    alone.
    """
    base = values_N
    while isinstance(base.base, np.ndarray):
        base = base.base
    if isinstance(base.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.base.madvise(mmap.MADV_DONTNEED)


def find_texts(
    sorted_N: np.ndarray, query_M: np.ndarray, order_N: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Position [M] in a sorted column of byte strings, and whether each string was found [M].

    ``order_N`` gives the sort order of a column that is not sorted. For equal strings, the first
    position is returned. The column is not copied, as numpy would do for strings of another width.
    """
    query_M = np.asarray(query_M)
    found_M = np.strings.str_len(query_M) <= sorted_N.dtype.itemsize
    query_M = query_M.astype(sorted_N.dtype)
    position_M = np.searchsorted(sorted_N, query_M, sorter=order_N)
    found_M &= position_M < len(sorted_N)
    position_K = position_M[found_M]
    index_K = position_K if order_N is None else order_N[position_K]
    found_M[found_M] = sorted_N[index_K] == query_M[found_M]
    return position_M, found_M


def _checksum(path: Path) -> list[int]:
    """[size, crc32c over the crc32c of each block]: fast enough to check on every open."""
    size, parts = 0, []
    with os.fdopen(open_regular(path), "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            size += len(block)
            parts.append(int(google_crc32c.value(block)))
    combined = np.asarray(parts, "<u4").tobytes()
    return [size, int(google_crc32c.value(combined))]
