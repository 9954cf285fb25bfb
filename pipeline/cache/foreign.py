"""Recognises folders that hold files of others: a transfer neither removes nor replaces these."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from distinit.pipeline.cache.layout import PULL_NOTES
from distinit.pipeline.cache.published import CHECKSUMS, MAX_LIST_BYTES
from distinit.pipeline.storage import PARTIAL_SUFFIX, read_bounded
from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import first_names, shown

__all__ = ["refuse_foreign_staging"]

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
        names = sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        name
        for name in names
        if name != _LOCK and not (name.startswith(f"{first}.") and name.endswith(PARTIAL_SUFFIX))
    ]
