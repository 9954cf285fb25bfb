"""The record of a partial copy of a cache: ``copy.json``, beside its manifest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distinit.schemas.base import Record, Sha256
from distinit.schemas.manifest import MAX_UNITS

__all__ = ["COPY_FORMAT_VERSION", "CopyRecord"]

COPY_FORMAT_VERSION = 1


class CopyRecord(Record):
    """``copy.json``: which part of a cache a folder holds.

    The digests of what it lacks make the content digest of the whole cache computable from the
    part, so that the part can be compared with the digest that the sender published.
    """

    format: Literal["distinit-cache-copy"] = Field(
        "distinit-cache-copy", description="name of the record's format"
    )
    format_version: int = Field(
        COPY_FORMAT_VERSION, description="version of the record's format; a reader refuses others"
    )
    content_digest: Sha256 = Field(description="content digest of the whole cache")
    teachers: tuple[str, ...] = Field(
        min_length=1, description="ids of the teachers that the folder has, sorted"
    )
    units: tuple[Annotated[int, Field(ge=0, lt=MAX_UNITS)], ...] = Field(
        description="numbers of the units that the folder has, of each of these teachers; ascending"
    )
    absent: dict[str, dict[str, Sha256]] = Field(
        description="teacher id -> unit number, as decimal text -> content_sha256, of all units "
        "of the cache that the folder does not have"
    )
