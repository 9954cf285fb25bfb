"""How many files a reader may keep open at once."""

from __future__ import annotations

import resource
from functools import cache

__all__ = ["files_at_once"]

_WANTED = 16_384
"""Descriptors of this process. The usual soft limit, 1,024, is for programs that use select()."""


@cache
def files_at_once() -> int:
    """Files that one reader (a teacher's targets, a frame store) may keep open.

    Raises the soft limit of this process (``ulimit -n``) as far as the hard one lets it. Several
    readers share what there is, so one takes an eighth: 2,048 where the limit can be raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    limit = _WANTED if soft == resource.RLIM_INFINITY else soft
    return max(min(256, limit // 4), min(limit, _WANTED) // 8)
