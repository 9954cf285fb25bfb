"""The frame store: every decoded frame as a small JPEG, or its optical flow, for students."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distinit.schemas.base import Record, SealedRecord, Sha256, VideoId
from distinit.schemas.corpus import SpoolConfig
from distinit.schemas.manifest import FileEntry
from distinit.schemas.video import DecodeConfig

__all__ = [
    "MAX_STORED_PIXELS",
    "STORE_FORMAT_VERSION",
    "BatchLocation",
    "DamagedVideo",
    "FlowConfig",
    "FlowSpec",
    "FrameGeometry",
    "FrameStoreManifest",
    "FramesConfig",
    "StoreCommit",
    "UndecodableVideo",
    "VideoRows",
]

STORE_FORMAT_VERSION = 2
MAX_STORED_PIXELS = 1 << 24
"""Most pixels of one frame: short edge 512 at an aspect ratio of 64."""
_MAX_EDGE = 65_535  # pixels; the limit of JPEG
_MAX_COUNT = 1 << 40  # frames, rows and bytes: sums of them stay within 64 bits


class FrameGeometry(Record):
    """Size and JPEG quality of stored frames."""

    mode: Literal["128x171", "short_edge"] = Field(
        "128x171",
        description="scale to height 128 and width 171, or keep the aspect ratio",
        json_schema_extra={"source": "VMZ: 128x171"},
    )
    short_edge: int = Field(
        128,
        ge=16,
        le=512,
        description="length of the shorter edge (mode short_edge)",
        json_schema_extra={"unit": "pixels"},
    )
    jpeg_quality: int = Field(
        90,
        ge=50,
        le=100,
        description="JPEG quality of the stored frames",
        json_schema_extra={"unit": "libjpeg quality", "source": "decision 7"},
    )

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) at which a width x height frame is stored; rounds as torchvision does."""
        if self.mode == "128x171":
            return 128, 171
        if width <= height:
            return int(self.short_edge * height / width), self.short_edge
        return self.short_edge, int(self.short_edge * width / height)


class FramesConfig(Record):
    """Configuration of ``frames build``: videos -> frame store, without teachers."""

    videos: str = Field(
        description="folder (searched recursively), a video, list (.txt, .csv, .parquet) or URL"
    )
    match: str | None = Field(
        None,
        description="mapping file of `cache match`: store only the copies that can be used",
    )
    out: str = Field(description="folder of the frame store, which is created or completed")
    geometry: FrameGeometry = Field(
        default_factory=FrameGeometry, description="size and quality of stored frames"
    )
    decode: DecodeConfig = Field(
        default_factory=DecodeConfig, description="decoding with ffmpeg, and its limits"
    )
    spool: SpoolConfig = Field(
        default_factory=SpoolConfig, description="where videos from URLs are downloaded to"
    )


class FlowSpec(Record):
    """How the frames of a flow store are computed: motion to the next frame, in planes x and y.

    Farneback's algorithm with VMZ's constants, on the frames of an RGB store in gray. The last
    frame has the same flow as the one before it. Level v of a plane means a motion of
    (v - 128) / 127 * flow_range pixels per frame, to the right or down, in pixels of the stored
    size; 128 means no motion.
    """

    method: Literal["farneback"] = Field(
        "farneback", description="algorithm: Farneback's polynomial expansion"
    )
    pyr_scale: float = Field(0.5**0.5, description="scale from one pyramid level to the next")
    levels: int = Field(5, description="pyramid levels")
    winsize: int = Field(10, description="size of the averaging window, pixels")
    iterations: int = Field(2, description="iterations per pyramid level")
    poly_n: int = Field(7, description="neighbourhood of the polynomial expansion, pixels")
    poly_sigma: float = Field(
        1.5, description="standard deviation of the expansion's Gaussian, pixels"
    )
    gaussian_window: bool = Field(True, description="whether the averaging window is a Gaussian")
    flow_range: float = Field(gt=0, description="largest motion kept, pixels per frame")
    jpeg_quality: int = Field(description="JPEG quality of the planes, which are one gray JPEG")
    opencv: str = Field(description="version of OpenCV that computed the flow")


class FlowConfig(Record):
    """Configuration of ``flow build``: RGB frame store -> flow store."""

    frames: str = Field(description="folder of the RGB frame store")
    out: str = Field(description="folder of the flow store, which is created or completed")
    flow_range: float = Field(
        20.0,
        gt=0,
        description="largest motion kept; larger ones are clipped",
        json_schema_extra={"unit": "pixels per frame", "source": "decision 15"},
    )
    jpeg_quality: int = Field(
        95,
        ge=50,
        le=100,
        description="JPEG quality of the stored planes",
        json_schema_extra={"unit": "libjpeg quality", "source": "decision 15"},
    )
    parallel_units: int | None = Field(
        None,
        ge=1,
        description="unit files computed in parallel, one thread per file; None: one per core",
        json_schema_extra={"unit": "files"},
    )


class VideoRows(Record):
    """Consecutive rows of one unit file that hold consecutive frames of one video.

    A video has several of these if it spans units, or was written alternately with other videos.
    """

    video_id: VideoId = Field(description="id of the video in the store")
    digest: Sha256 = Field(description="sha256 of the video file's bytes")
    first_frame: int = Field(
        ge=0, le=_MAX_COUNT, description="index in the video of the first of these frames"
    )
    frame_count: int = Field(ge=0, le=_MAX_COUNT, description="number of these frames")
    first_row: int = Field(
        ge=0, le=_MAX_COUNT, description="row of the first of these frames in the file"
    )
    height: int = Field(ge=1, le=_MAX_EDGE, description="pixels, as stored")
    width: int = Field(ge=1, le=_MAX_EDGE, description="pixels, as stored")
    fps: float = Field(ge=0, description="mean frames per second of the source; 0 if unknown")


class UndecodableVideo(Record):
    """A video that could not be decoded: none of its frames are kept."""

    video_id: VideoId = Field(description="id of the video in the store")
    digest: Sha256 = Field(description="sha256 of the video file's bytes")
    error: str = Field(description="why it could not be decoded")


class DamagedVideo(Record):
    """A video that is stored although it is damaged."""

    video_id: VideoId = Field(description="id of the video in the store")
    digest: Sha256 = Field(description="sha256 of the video file's bytes")
    damage: str = Field(description="frames that are missing, or errors within frames")


class BatchLocation(Record):
    """Where the columns of one record batch are in a unit's file, as byte offsets from its start.

    With these, a reader does not parse Arrow's own metadata, which an attacker may have written.
    """

    offsets: int = Field(
        ge=0, le=_MAX_COUNT, description="offsets of `jpeg`: int32, one more than there are rows"
    )
    jpegs: int = Field(
        ge=0, le=_MAX_COUNT, description="data of `jpeg`, which the offsets refer to"
    )
    checksums: int = Field(
        ge=0, le=_MAX_COUNT, description="values of `crc32c`: uint32, one per row"
    )


class StoreCommit(SealedRecord):
    """``commits/unit-NNNNN.json`` of a frame store; written after the unit's file."""

    unit: int = Field(ge=0, le=_MAX_COUNT, description="number of the unit, from 0")
    files: dict[str, FileEntry] = Field(description="path relative to the store -> size, sha256")
    videos: tuple[VideoRows, ...] = Field(description="contents of the file, in row order")
    batches: tuple[BatchLocation, ...] = Field(
        (), description="record batches in order, of 512 rows each except the last"
    )
    failed: tuple[UndecodableVideo, ...] = Field(
        (), description="videos of the unit that could not be decoded"
    )
    damaged: tuple[DamagedVideo, ...] = Field(
        (), description="videos of the unit that are stored although they are damaged"
    )

    @property
    def frame_count(self) -> int:
        """Number of frames in the unit's file."""
        return sum(rows.frame_count for rows in self.videos)


class FrameStoreManifest(SealedRecord):
    """``store.json``: the geometry of all frames in the store, and its units."""

    format: Literal["distinit-frame-store"] = Field(
        "distinit-frame-store", description="name of the record's format"
    )
    format_version: int = Field(
        STORE_FORMAT_VERSION, description="version of the record's format; a reader refuses others"
    )
    geometry: FrameGeometry = Field(description="size and JPEG quality of all frames")
    flow: FlowSpec | None = Field(None, description="how flow was computed; None: RGB frames")
    plan_digest: Sha256 = Field(description="digest of the plan that assigns videos to units")
    units: tuple[int, ...] | None = Field(
        None,
        description="units of the finished store, ascending; None while it is being written",
    )
