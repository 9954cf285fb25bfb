"""Configuration of stage one: videos + frozen teachers -> target cache and frame store."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.corpus import SpoolConfig
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.teacher import TeacherRequest
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["ComputeConfig", "ExtractConfig"]


class ComputeConfig(Record):
    """Where workers run."""

    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        0,
        description="Ray workers; 0 runs in this process and never imports Ray; "
        "auto: as many as the cluster has room for",
    )
    ray_address: str | None = Field(
        None, description="an existing cluster (auto, HOST:6379); None starts a local one"
    )
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs a worker reserves; fractions share")
    cpus_per_worker: float = Field(1.0, gt=0, description="CPU cores a worker reserves")
    max_attempts: int = Field(
        2, ge=1, description="tries of one unit whose worker died before its video is quarantined"
    )
    start_seconds: float = Field(
        900.0, gt=0, description="longest time without any worker alive before the run ends"
    )


class ExtractConfig(Record):
    """One YAML file of this shape reproduces a target cache."""

    videos: str = Field(description="folder (recursive), a list (.txt, .csv, .parquet) or a URL")
    teachers: tuple[TeacherRequest, ...] = Field(min_length=1, description="teachers, one pass")
    cache: str = Field(description="folder of the target cache; created or continued")
    frames: str | None = Field(None, description="folder of the frame store; None writes none")
    geometry: FrameGeometry = Field(
        default_factory=FrameGeometry, description="size and quality of stored frames"
    )
    sampling: SamplingConfig = Field(
        default_factory=SamplingConfig, description="which frames the teachers see"
    )
    decode: DecodeConfig = Field(default_factory=DecodeConfig, description="ffmpeg and its limits")
    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="where workers run")
    spool: SpoolConfig = Field(
        default_factory=SpoolConfig, description="where videos named by URL wait"
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="frames per forward pass of a teacher; auto: 32 on a CPU, as many as pay on a "
        "GPU. A GPU that runs out of memory gets half as many",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="arithmetic of the forward pass; bf16/fp16 use autocast"
    )
    compile: bool = Field(
        False, description="torch.compile the teachers on a GPU (a CPU's answers stay as they are)"
    )
    device: str = Field("auto", description="auto (GPU if there is one), cpu, cuda, cuda:N")
    unit_rows: int | None = Field(
        None,
        ge=64,
        le=32768,
        multiple_of=64,
        description="rows of a unit (1,024 .. 32,768); None derives it from the corpus",
    )
    max_failed: float = Field(
        1.0, ge=0, le=1, description="largest share of failed videos before the run ends in error"
    )
    retry_failed: bool = Field(False, description="try videos again that failed before")
    keep_gone: bool = Field(
        False,
        description="videos that the cache knows and ``videos`` no longer holds stay in training",
    )
