"""How videos are decoded and which of their frames the teachers see."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distinit.schemas.base import Record

__all__ = ["DecodeConfig", "SamplingConfig"]


class SamplingConfig(Record):
    """Which decoded frames become rows of the cache (the frame store keeps all of them)."""

    mode: Literal["all", "stride", "fps", "per_video"] = Field(
        "all",
        description="all frames; every N-th; at most N per second of presentation time; K per "
        "video, evenly spaced over the frames that are shown",
    )
    stride: int = Field(1, ge=1, description="frames from one row to the next (mode stride)")
    fps: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="rows per second (mode fps): of each slot of 1/fps seconds from the first "
        "frame on, the first frame that is shown in it",
    )
    per_video: int | None = Field(
        None,
        ge=1,
        description="rows per video, or as many as it has frames (mode per_video)",
    )

    @model_validator(mode="after")
    def _matching_value(self) -> SamplingConfig:
        if self.mode == "fps" and self.fps is None:
            raise ValueError("mode fps needs a value for fps")
        if self.mode == "per_video" and self.per_video is None:
            raise ValueError("mode per_video needs a value for per_video")
        if self.mode != "stride" and self.stride != 1:
            raise ValueError("stride goes with mode stride")
        return self

    def __str__(self) -> str:
        """For people: "all frames", "at most 2 a second"."""
        if self.mode == "stride":
            return f"stride {self.stride}"
        if self.mode == "fps":
            return f"at most {self.fps:g} a second"
        return f"{self.per_video} a video" if self.mode == "per_video" else "all frames"


class DecodeConfig(Record):
    """Limits on one ffmpeg process. They bound what a broken or hostile file can cost."""

    threads: int = Field(1, ge=0, description="decoder threads per video; 0 lets ffmpeg choose")
    parallel_videos: int = Field(2, ge=1, description="ffmpeg processes per worker")
    deadline_seconds: float = Field(
        3600.0,
        gt=0,
        description="longest time that is spent waiting for one video's ffmpeg, seconds; while the "
        "teachers or the disk are the slower part, the clock stands",
    )
    stall_seconds: float = Field(
        60.0,
        gt=0,
        description="longest single wait for ffmpeg without a byte from it, seconds; the clock "
        "stands as above",
    )
    max_pixels: int = Field(
        8192 * 4320, ge=1, description="largest width x height accepted, pixels (8K)"
    )
    max_frames: int = Field(
        5_000_000, ge=1, description="most frames accepted in one video (46 h at 30 fps)"
    )
    max_memory_mib: int = Field(
        4096, ge=64, description="address-space-independent resident limit of one ffmpeg, MiB"
    )
    damaged: Literal["keep", "fail"] = Field(
        "keep",
        description="what becomes of a video that lost frames, or may have: kept, with what is "
        "missing in videos.parquet, or failed",
    )
    hwaccel: Literal["none", "cuda"] = Field(
        "none",
        description="hardware decoder; without one in ffmpeg or without a GPU, videos are decoded "
        "in software, with a message",
    )
