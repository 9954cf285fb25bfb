"""Configuration of video decoding, and of the frames that become rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distinit.schemas.base import Record

__all__ = ["DecodeConfig", "SamplingConfig"]


FEWEST_VIDEOS = 2
"""Decoded at a time, so that one decodes while another starts."""
MOST_VIDEOS = 16
"""Decoded at a time by default: each takes memory for its frames."""


class SamplingConfig(Record):
    """Which decoded frames become rows of the cache (the frame store keeps all of them)."""

    mode: Literal["all", "stride", "fps", "per_video"] = Field(
        "all",
        description="all: all frames; stride: every N-th frame; fps: at most N frames per second "
        "of presentation time; per_video: K frames per video, evenly spaced",
    )
    stride: int = Field(
        1,
        ge=1,
        description="distance between rows (mode stride)",
        json_schema_extra={"unit": "frames"},
    )
    fps: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="rate of rows (mode fps): the first frame in each interval of 1/fps seconds, "
        "counted from the first frame",
        json_schema_extra={"unit": "rows per second"},
    )
    per_video: int | None = Field(
        None,
        ge=1,
        description="rows per video (mode per_video); a shorter video gets one per frame",
        json_schema_extra={"unit": "rows"},
    )

    @model_validator(mode="after")
    def _matching_value(self) -> SamplingConfig:
        if self.mode == "fps" and self.fps is None:
            raise ValueError("mode fps needs a value for fps")
        if self.mode == "per_video" and self.per_video is None:
            raise ValueError("mode per_video needs a value for per_video")
        if self.mode != "stride" and self.stride != 1:
            raise ValueError("stride needs mode stride")
        return self

    def __str__(self) -> str:
        """A short description: "all frames", "at most 2 a second".

        It is part of the README.md of published caches, which verification compares byte for byte:
        do not change it.
        """
        if self.mode == "stride":
            return f"stride {self.stride}"
        if self.mode == "fps":
            return f"at most {self.fps:g} a second"
        return f"{self.per_video} a video" if self.mode == "per_video" else "all frames"


class DecodeConfig(Record):
    """How ffmpeg decodes, with limits on what a broken or hostile file can cost."""

    threads: int = Field(
        1,
        ge=0,
        description="decoder threads per video; 0: ffmpeg decides. With more than 1, the frames of "
        "damaged videos differ between runs, and so does the digest of the cache",
        json_schema_extra={"unit": "threads"},
    )
    parallel_videos: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="videos that a worker decodes at a time, each with its own ffmpeg; up to 8 "
        "short ones share one and count as one; auto: one per CPU core of the worker, but at least "
        "2 and at most 16",
        json_schema_extra={"unit": "videos"},
    )
    deadline_seconds: float = Field(
        3600.0,
        gt=0,
        description="longest total wait for the ffmpeg of one video; time in which ffmpeg itself "
        "waits for teachers or the disk does not count",
        json_schema_extra={"unit": "seconds"},
    )
    stall_seconds: float = Field(
        60.0,
        gt=0,
        description="longest single wait for data from ffmpeg; measured like deadline_seconds",
        json_schema_extra={"unit": "seconds"},
    )
    max_pixels: int = Field(
        8192 * 4320,
        ge=1,
        description="largest accepted width x height (8K)",
        json_schema_extra={"unit": "pixels"},
    )
    max_frames: int = Field(
        5_000_000,
        ge=1,
        description="most frames in one video (46 h at 30 fps)",
        json_schema_extra={"unit": "frames"},
    )
    max_memory_mib: int = Field(
        4096,
        ge=64,
        description="largest resident memory of one ffmpeg process",
        json_schema_extra={"unit": "MiB"},
    )
    damaged: Literal["keep", "fail"] = Field(
        "keep",
        description="keep: keep a video of which frames are, or may be, missing, and record the "
        "damage in videos.parquet; fail: record it as failed",
    )
    hwaccel: Literal["none", "cuda"] = Field(
        "none",
        description="hardware decoder; if ffmpeg cannot use it, videos are decoded in software, "
        "with a warning",
    )

    def videos_at_once(self, cpus: float | None) -> int:
        """Videos to decode at a time with ``cpus`` cores; None: their number is unknown."""
        if self.parallel_videos != "auto":
            return self.parallel_videos
        return min(max(int(cpus or 1), FEWEST_VIDEOS), MOST_VIDEOS)
