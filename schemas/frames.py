"""The frame store: small JPEG frames of every decoded frame, for the students."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.manifest import FileEntry

__all__ = ["FrameGeometry", "FrameStoreManifest", "StoreCommit", "StoredVideo"]


class FrameGeometry(Record):
    """Size of a stored frame."""

    mode: Literal["128x171", "short_edge"] = Field(
        "128x171", description="squash to height 128, width 171 (VMZ), or keep the aspect ratio"
    )
    short_edge: int = Field(128, ge=16, le=512, description="pixels (mode short_edge)")
    jpeg_quality: int = Field(90, ge=50, le=100, description="JPEG quality, libjpeg's scale")

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) in pixels of a stored frame whose source is width x height."""
        if self.mode == "128x171":
            return 128, 171
        scale = self.short_edge / min(width, height)
        return max(1, round(height * scale)), max(1, round(width * scale))


class StoredVideo(Record):
    """One video in one unit file: a run of rows."""

    video_id: str
    digest: str = Field(description="sha256 of the video file's bytes")
    first_frame: int = Field(ge=0, description="index of the first frame that lies in this file")
    frame_count: int = Field(ge=0, description="frames in this file")
    first_row: int = Field(ge=0, description="row of the first frame within this file")
    height: int = Field(ge=1, description="pixels, as stored")
    width: int = Field(ge=1, description="pixels, as stored")
    fps: float = Field(ge=0, description="mean frames per second of the source; 0 if unknown")


class StoreCommit(Record):
    """``commits/unit-NNNNN.json`` of a frame store; written last."""

    unit: int = Field(ge=0)
    files: dict[str, FileEntry]
    videos: tuple[StoredVideo, ...]


class FrameStoreManifest(Record):
    """``store.json``: the geometry of all frames in the store."""

    format: Literal["distinit-frame-store"] = "distinit-frame-store"
    format_version: int = 1
    geometry: FrameGeometry
    plan_digest: str = Field(description="of the unit plan that the files follow")
