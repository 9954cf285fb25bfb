"""Recognises folders that hold files of others: a transfer neither removes nor replaces these."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from distinit.pipeline.cache.layout import PULL_NOTES
from distinit.pipeline.cache.published import CHECKSUMS, MANIFEST, MAX_LIST_BYTES
from distinit.pipeline.storage import PARTIAL_SUFFIX, read_bounded, storage_errors
from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import first_names, shown

__all__ = ["refuse_foreign_staging", "refuse_foreign_target"]

_SHA256 = re.compile(rb"[0-9a-f]{64}")
_LOCK = ".lock"


def refuse_foreign_staging(staging: Path, list_sha256: str) -> None:
    """Raise ConfigError if a pull has not made the folder ``staging``, in which files lie.

    ``list_sha256``: of the cache that is pulled. A pull that was killed just before its folder got
    its name has no notes any more, but that list.
    """
    found = _files_in(staging, PULL_NOTES)
    if not found or _is_of_pull(staging, list_sha256):
        return
    raise ConfigError(
        f"{staging} holds files that are not of a pull: nothing was copied or removed",
        expected="a folder that an earlier pull has left, an empty one, or none",
        found=first_names(map(shown, found)),
        remedy="rename that folder, or choose another FOLDER",
    )


def refuse_foreign_target(root: Path) -> None:
    """Raise ConfigError if files lie in the folder ``root`` that no push has sent there.

    A push sends the list of its files first. A folder with a manifest.json is not judged here.
    """
    found = _files_in(root, CHECKSUMS)
    if not found or MANIFEST in found or _is_of_push(root):
        return
    raise ConfigError(
        f"{root} holds files that are not of a cache: nothing was sent",
        expected="an empty folder, one that does not exist, or one that an earlier push has left",
        found=first_names(map(shown, found)),
        remedy="choose another folder",
    )


def _is_of_push(root: Path) -> bool:
    """Whether there is a list of the files of a cache; other programs use that name too."""
    try:
        listed = read_bounded(root / CHECKSUMS, MAX_LIST_BYTES)
    except OSError:
        return False
    return b"  manifest.json\n" in listed and b"  plan.parquet\n" in listed


def _is_of_pull(staging: Path, list_sha256: str) -> bool:
    try:
        return _SHA256.fullmatch(read_bounded(staging / PULL_NOTES, 64)) is not None
    except OSError:
        pass
    try:
        listed = read_bounded(staging / CHECKSUMS, MAX_LIST_BYTES)
    except OSError:
        return False
    return hashlib.sha256(listed).hexdigest() == list_sha256


def _files_in(folder: Path, first: str) -> list[str]:
    """Names in a folder, without the lock and what is left of writing the file ``first``."""
    try:
        with storage_errors(folder):
            names = sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        name
        for name in names
        if name != _LOCK and not (name.startswith(f"{first}.") and name.endswith(PARTIAL_SUFFIX))
    ]
