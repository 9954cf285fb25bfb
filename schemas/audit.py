"""Configuration of the audit: what a cache says of its teachers' confidence."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record

__all__ = ["AuditConfig"]


class AuditConfig(Record):
    """Plots, tables and contact sheets of one cache."""

    cache: str = Field(description="folder of the target cache")
    out: str = Field(description="folder of the report: PNGs and report.html")
    frames: str | None = Field(
        None, description="frame store for contact sheets; None: no pictures"
    )
    sheet_frames: int = Field(24, ge=1, le=400, description="frames on one contact sheet")
    top_classes: int = Field(15, ge=1, description="classes in the table and plot")
