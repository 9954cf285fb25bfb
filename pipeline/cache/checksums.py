"""What ``manifest-sha256.txt`` says of a file, for readers of files that nothing else covers."""

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
    """Raise CacheCorruptError for a file with another sha256 than the list says.

    A cache that is not complete has no list; ``distinit cache verify`` misses it where it should
    be there.
    """
    wanted = {layout.relative(path): path for path in paths if path.exists()}
    try:
        descriptor = open_regular(layout.checksums)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CacheCorruptError(
            f"cannot read {layout.checksums}",
            found=error.strerror,
            remedy=f"run `distinit cache verify {layout.root}`",
        ) from error
    with os.fdopen(descriptor, "rb") as lines:
        while line := lines.readline(_MAX_LINE_BYTES):
            stored, _, name = line.decode("utf-8", "replace").rstrip("\n").partition("  ")
            if name in wanted and sha256_file(wanted[name]) != stored:
                raise CacheCorruptError(
                    f"{wanted[name]} is not as manifest-sha256.txt says",
                    expected=f"sha256 {stored}",
                    found="other bytes",
                    remedy=f"`distinit cache verify {layout.root}` lists all damage; restore the "
                    "file from a copy",
                )
