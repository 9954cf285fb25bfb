"""How counts read: "1 video", "2 videos"."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, thing: str) -> str:
    """``count`` of ``thing`` (a noun whose plural ends in s): "1 video", "2 videos"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
