"""The version of the target cache's format. docs/cache-format.md says what a version may change."""

from __future__ import annotations

__all__ = ["CACHE_FORMAT_MINOR", "CACHE_FORMAT_VERSION"]

CACHE_FORMAT_VERSION = 2
"""The major version: readers refuse any other."""

CACHE_FORMAT_MINOR = 2
"""The newest minor version that is known here. Newer ones add keys and files, nothing else."""
