"""Configuration of `plan`, which estimates the output and cost of an extraction."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.compute import Device
from distinit.schemas.corpus import SpoolConfig
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.teacher import Encoding, TeacherRequest
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["PlanConfig"]


class PlanConfig(Record):
    """Configuration of an estimate; keys shared with ExtractConfig have the same meaning."""

    videos: str = Field(
        description="folder (recursive), a video, a list (.txt, .csv, .parquet) or a URL"
    )
    teachers: tuple[TeacherRequest, ...] = Field(
        (),
        description="teachers to time; none: time only decoding, and assume 1,000 classes",
    )
    sampling: SamplingConfig = Field(
        default_factory=SamplingConfig, description="which frames the teachers see"
    )
    geometry: FrameGeometry = Field(
        default_factory=FrameGeometry, description="size and quality of stored frames"
    )
    decode: DecodeConfig = Field(
        default_factory=DecodeConfig, description="settings and limits of ffmpeg"
    )
    spool: SpoolConfig = Field(
        default_factory=SpoolConfig, description="folder for downloads of videos named by URL"
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="frames per forward pass of a teacher, as in extract",
        json_schema_extra={"unit": "frames"},
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="arithmetic of the forward pass; auto: as extract into a new cache",
    )
    compile: bool = Field(False, description="torch.compile the teachers on a GPU, as in extract")
    device: Device = Field("auto", description="auto (GPU if available), cpu, cuda, cuda:N")
    sample: int = Field(
        20,
        ge=1,
        description="number of videos to sample; the same ones in each run",
        json_schema_extra={"unit": "videos"},
    )
    seconds: float = Field(
        5.0,
        gt=0,
        description="how long to time decoding, and each teacher",
        json_schema_extra={"unit": "seconds"},
    )
    encodings: tuple[Encoding, ...] = Field(
        ("float16", "int8", "topk:32"), description="encodings to compare by size"
    )
    workers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2, 4, 8, 16, 32),
        min_length=1,
        description="numbers of workers to compare by hours",
        json_schema_extra={"unit": "workers"},
    )
