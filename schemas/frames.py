"""The frame store: small JPEG frames of every decoded frame, or their flow, for the students."""

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
    "BatchPlace",
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
"""Of one frame: short edge 512 at an aspect ratio of 64."""
_MAX_EDGE = 65_535  # of a JPEG
_MAX_COUNT = 1 << 40  # frames, rows and bytes: sums of them stay within 64 bits


class FrameGeometry(Record):
    """Size of a stored frame."""

    mode: Literal["128x171", "short_edge"] = Field(
        "128x171", description="squash to height 128, width 171 (VMZ), or keep the aspect ratio"
    )
    short_edge: int = Field(128, ge=16, le=512, description="pixels (mode short_edge)")
    jpeg_quality: int = Field(90, ge=50, le=100, description="JPEG quality, libjpeg's scale")

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) in pixels of a stored width x height frame, as torchvision rounds."""
        if self.mode == "128x171":
            return 128, 171
        if width <= height:
            return int(self.short_edge * height / width), self.short_edge
        return self.short_edge, int(self.short_edge * width / height)


class FramesConfig(Record):
    """Videos -> frame store, without any teacher."""

    videos: str = Field(description="folder (recursive), a list (.txt, .csv, .parquet) or a URL")
    out: str = Field(description="folder of the frame store; created or continued")
    geometry: FrameGeometry = Field(
        default_factory=FrameGeometry, description="size and quality of stored frames"
    )
    decode: DecodeConfig = Field(default_factory=DecodeConfig, description="ffmpeg and its limits")
    spool: SpoolConfig = Field(
        default_factory=SpoolConfig, description="where videos named by URL wait"
    )


class FlowSpec(Record):
    """What the pictures of a flow store are: motion to the next frame, x and y in two planes.

    Farneback's algorithm with VMZ's constants on the frames of an RGB store, in grey. Of the last
    frame it is that of the frame before. Level v of a plane means (v - 128) / 127 * flow_range
    pixels a frame of the stored size, to the right or down; 128 is no motion.
    """

    method: Literal["farneback"] = "farneback"
    pyr_scale: float = Field(0.5**0.5, description="scale from one pyramid level to the next")
    levels: int = Field(5, description="pyramid levels")
    winsize: int = Field(10, description="averaging window, pixels")
    iterations: int = Field(2, description="at each level")
    poly_n: int = Field(7, description="neighbourhood of the polynomial expansion, pixels")
    poly_sigma: float = Field(1.5, description="Gaussian of the expansion, pixels")
    gaussian_window: bool = Field(True, description="a Gaussian averaging window")
    flow_range: float = Field(gt=0, description="largest motion kept, pixels a frame")
    jpeg_quality: int = Field(description="of the planes, which are one grey JPEG")
    opencv: str = Field(description="version of OpenCV that computed it")


class FlowConfig(Record):
    """RGB frame store -> flow frame store."""

    frames: str = Field(description="folder of the RGB frame store")
    out: str = Field(description="folder of the flow store; created or continued")
    flow_range: float = Field(
        20.0, gt=0, description="largest motion kept, pixels a frame; larger ones are cut to it"
    )
    jpeg_quality: int = Field(95, ge=50, le=100, description="JPEG quality, libjpeg's scale")
    parallel_units: int | None = Field(
        None, ge=1, description="files computed at a time, a thread each; None: one a core"
    )


class VideoRows(Record):
    """A run of rows of one unit file: consecutive frames of one video.

    A video has one run, or several when it spans units or was written in turns with others.
    """

    video_id: VideoId
    digest: Sha256 = Field(description="sha256 of the video file's bytes")
    first_frame: int = Field(
        ge=0, le=_MAX_COUNT, description="index of the first frame that lies in this file"
    )
    frame_count: int = Field(ge=0, le=_MAX_COUNT, description="frames in this file")
    first_row: int = Field(
        ge=0, le=_MAX_COUNT, description="row of the first frame within this file"
    )
    height: int = Field(ge=1, le=_MAX_EDGE, description="pixels, as stored")
    width: int = Field(ge=1, le=_MAX_EDGE, description="pixels, as stored")
    fps: float = Field(ge=0, description="mean frames per second of the source; 0 if unknown")


class UndecodableVideo(Record):
    """A video that could not be decoded: none of its frames are kept."""

    video_id: VideoId
    digest: Sha256 = Field(description="sha256 of the video file's bytes")
    error: str


class DamagedVideo(Record):
    """A video that is stored although something is wrong with it."""

    video_id: VideoId
    digest: Sha256 = Field(description="sha256 of the video file's bytes")
    damage: str = Field(description="what: frames that are missing, or errors within pictures")


class BatchPlace(Record):
    """Where the columns of one record batch lie in the unit's file: bytes from its beginning.

    What reads a store needs nothing of Arrow's own metadata, which a stranger may have written.
    """

    offsets: int = Field(ge=0, le=_MAX_COUNT, description="of ``jpeg``: int32, one more than rows")
    jpegs: int = Field(ge=0, le=_MAX_COUNT, description="the bytes that the offsets count from")
    checksums: int = Field(ge=0, le=_MAX_COUNT, description="of ``crc32c``: uint32, one a row")


class StoreCommit(SealedRecord):
    """``commits/unit-NNNNN.json`` of a frame store; written last."""

    unit: int = Field(ge=0, le=_MAX_COUNT)
    files: dict[str, FileEntry] = Field(description="path relative to the store -> size, sha256")
    videos: tuple[VideoRows, ...] = Field(description="runs, in the order of their rows")
    batches: tuple[BatchPlace, ...] = Field((), description="in order; 512 rows each but the last")
    failed: tuple[UndecodableVideo, ...] = ()
    damaged: tuple[DamagedVideo, ...] = ()

    @property
    def rows(self) -> int:
        """Frames in the unit's file."""
        return sum(run.frame_count for run in self.videos)


class FrameStoreManifest(SealedRecord):
    """``store.json``: the geometry of all frames in the store."""

    format: Literal["distinit-frame-store"] = "distinit-frame-store"
    format_version: int = STORE_FORMAT_VERSION
    geometry: FrameGeometry
    flow: FlowSpec | None = Field(None, description="of a flow store; None: RGB pictures")
    plan_digest: Sha256 = Field(description="of the unit plan that the files follow")
    units: tuple[int, ...] | None = Field(
        None,
        description="units of the finished store, ascending; None while it is being written",
    )
