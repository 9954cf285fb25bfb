"""The target cache: stored teacher outputs. ``TargetCache`` reads one."""

from distinit.pipeline.cache.reader import TargetCache

__all__ = ["TargetCache"]
