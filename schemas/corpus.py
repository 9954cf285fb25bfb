"""Where videos from elsewhere wait on this machine."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record

__all__ = ["SpoolConfig"]


class SpoolConfig(Record):
    """A folder for videos that a list names by URL; the ones unused longest make room."""

    folder: str | None = Field(
        None, description="None: $XDG_CACHE_HOME/distinit/spool; shared by all runs of a machine"
    )
    limit_gib: float = Field(
        20.0, gt=0, description="GiB it may hold; one video may not be larger than that"
    )
