"""Checks files against ``manifest-sha256.txt``, where no other record has their checksum."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.storage import open_regular, sha256_file
from distinit.schemas.errors import CacheCorruptError

__all__ = ["check_listed"]

_MAX_LINE_BYTES = 8192


def check_listed(layout: CacheLayout, paths: Iterable[Path]) -> None:
    """Raise CacheCorruptError for a file whose sha256 differs from the listed one.

    A cache that is not complete has no list, so a missing list passes here; ``distinit cache
    verify`` reports a list that is missing from a complete cache.
    """
    listed = {layout.relative(path): path for path in paths if path.exists()}
    try:
        descriptor = open_regular(layout.checksums)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CacheCorruptError(
            f"cannot read {layout.checksums}",
            found=error.strerror,
            remedy=f"run `{layout.verify_command()}`",
        ) from error
    with os.fdopen(descriptor, "rb") as lines:
        while line := lines.readline(_MAX_LINE_BYTES):
            stored, _, name = line.decode("utf-8", "replace").rstrip("\n").partition("  ")
            if name in listed and sha256_file(listed[name]) != stored:
                raise CacheCorruptError(
                    f"{listed[name]} does not match manifest-sha256.txt",
                    expected=f"sha256 {stored}",
                    found="other bytes",
                    remedy=f"`{layout.verify_command()}` lists all damage; restore the "
                    "file from a copy",
                )
