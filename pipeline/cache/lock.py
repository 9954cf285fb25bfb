"""One writer per cache: see ``pipeline/lock.py``."""

from __future__ import annotations

from distinit.pipeline.lock import WriterLock
from distinit.schemas.errors import CacheLockedError

__all__ = ["CacheLock"]


class CacheLock(WriterLock):
    """The lock of a target cache, or of a run."""

    error = CacheLockedError
