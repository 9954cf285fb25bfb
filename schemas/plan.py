"""Configuration of ``plan``: what an extraction would give and cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.corpus import SpoolConfig
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.teacher import Encoding, TeacherRequest
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["PlanConfig"]


class PlanConfig(Record):
    """The keys that it shares with ExtractConfig mean the same."""

    videos: str = Field(description="folder (recursive), a list (.txt, .csv, .parquet) or a URL")
    teachers: tuple[TeacherRequest, ...] = Field(
        (), description="teachers to time; none: decoding only, and sizes for 1,000 classes"
    )
    sampling: SamplingConfig = Field(
        default_factory=SamplingConfig, description="which frames the teachers see"
    )
    geometry: FrameGeometry = Field(
        default_factory=FrameGeometry, description="size and quality of stored frames"
    )
    decode: DecodeConfig = Field(default_factory=DecodeConfig, description="ffmpeg and its limits")
    spool: SpoolConfig = Field(
        default_factory=SpoolConfig, description="where videos named by URL wait"
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="frames per forward pass of a teacher, as in extract"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="as in extract")
    compile: bool = Field(False, description="as in extract")
    device: str = Field("auto", description="auto (GPU if there is one), cpu, cuda, cuda:N")
    sample: int = Field(20, ge=1, description="videos to look at; the same ones every time")
    seconds: float = Field(5.0, gt=0, description="time to decode, and time for each teacher")
    encodings: tuple[Encoding, ...] = Field(
        ("float16", "int8", "topk:32"), description="ways to store logits, to compare"
    )
    workers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2, 4, 8, 16, 32), min_length=1, description="numbers of workers, to compare"
    )
