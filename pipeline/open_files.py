"""The number of files that a reader may keep open at once."""

from __future__ import annotations

import resource
from functools import cache

__all__ = ["files_at_once"]

_MAX_FILES = 16_384
"""Largest limit to request. The usual soft limit, 1,024, exists for programs with select()."""


@cache
def files_at_once() -> int:
    """Number of files that one reader (a teacher's targets, a frame store) may keep open.

    Raises the soft limit of this process (``ulimit -n``), up to the hard limit if necessary.
    Several readers share the limit, so each may use an eighth of it: 2,048 if it can be raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    requested = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < requested:
        resource.setrlimit(resource.RLIMIT_NOFILE, (requested, hard))
        soft = requested
    limit = _MAX_FILES if soft == resource.RLIM_INFINITY else soft
    return max(min(256, limit // 4), min(limit, _MAX_FILES) // 8)
