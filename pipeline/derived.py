"""Columns derived from published files: one ``.npy`` file each, memory-mapped, never published.

They lie under ``$XDG_CACHE_HOME/distinit/<key>/``, where ``key`` is a digest of what they were
derived from. Mapped, they cost address space and no memory, and the processes of a machine share
them. Whatever is damaged is derived again; the folder may be deleted at any time.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from distinit.pipeline.storage import atomic_write_bytes, fsync_dir, storage_errors

__all__ = [
    "columns_are_sound",
    "derive_columns",
    "find_texts",
    "index_folder",
    "map_column",
    "new_column",
]

_BLOCK_BYTES = 1 << 24


def index_folder(key: str) -> Path:
    """``$XDG_CACHE_HOME/distinit/<key>``, ``~/.cache`` where the variable is not set."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(home) / "distinit" / key


def columns_are_sound(folder: Path, version: int) -> bool:
    """Whether the columns at ``folder`` are all there, undamaged and of this ``version``."""
    try:
        record = json.loads((folder / "index.json").read_bytes())
        return bool(record["version"] == version) and all(
            _checksum(folder / name) == stored for name, stored in record["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def derive_columns(folder: Path, version: int, write: Callable[[Path], None]) -> None:
    """Have ``write`` fill a new folder with columns, which then takes the place of ``folder``.

    Raises StorageError if the disk refuses, and whatever ``write`` raises.
    """
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    with storage_errors(folder):
        try:
            partial.mkdir(parents=True)
            write(partial)
            files = {path.name: _checksum(path) for path in sorted(partial.iterdir())}
            record = json.dumps({"version": version, "files": files}, indent=2)
            atomic_write_bytes(partial / "index.json", record.encode())
            if columns_are_sound(folder, version):
                return  # another process was faster
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        fsync_dir(folder.parent)


def map_column(folder: Path, name: str) -> np.ndarray:
    """One column, read-only."""
    values = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    # The plain view of a mapping indexes several times faster than np.memmap itself.
    plain: np.ndarray = values.view(np.ndarray)
    return plain


def new_column(folder: Path, name: str, rows: int, kind: Any) -> np.ndarray:
    """A column of zeros to be written to, memory-mapped."""
    path = folder / f"{name}.npy"
    if rows == 0:  # an empty file cannot be mapped for writing
        np.save(path, np.zeros(0, kind), allow_pickle=False)
        return np.zeros(0, kind)
    values: np.ndarray = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(rows,))
    return values


def find_texts(
    sorted_N: np.ndarray, wanted_M: np.ndarray, order_N: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(place [M], is it there [M]) of texts (bytes) in a sorted column; ``order_N`` sorts it.

    Of equal ones the first place. Nothing of the column is copied, which numpy does for texts of
    another width.
    """
    wanted_M = np.asarray(wanted_M)
    known_M = np.strings.str_len(wanted_M) <= sorted_N.dtype.itemsize
    wanted_M = wanted_M.astype(sorted_N.dtype)
    place_M = np.searchsorted(sorted_N, wanted_M, sorter=order_N)
    known_M &= place_M < len(sorted_N)
    place_K = place_M[known_M]
    number_K = place_K if order_N is None else order_N[place_K]
    known_M[known_M] = sorted_N[number_K] == wanted_M[known_M]
    return place_M, known_M


def _checksum(path: Path) -> list[int]:
    """[size, crc32c of the crc32c of its blocks]: quick enough to check on every open."""
    size, parts = 0, []
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            size += len(block)
            parts.append(int(google_crc32c.value(block)))
    combined = np.asarray(parts, "<u4").tobytes()
    return [size, int(google_crc32c.value(combined))]
