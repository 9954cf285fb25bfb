"""The target cache: what teachers said, on disk. ``TargetCache`` reads it."""

from distinit.pipeline.cache.reader import TargetCache

__all__ = ["TargetCache"]
