"""Configuration of `extract`: videos and frozen teachers -> target cache and frame store."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from distinit.schemas.base import NOT_IDENTITY, Record
from distinit.schemas.compute import ComputeConfig, Device
from distinit.schemas.corpus import SpoolConfig
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.provenance import Provenance
from distinit.schemas.teacher import TeacherRequest
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["ExtractConfig"]

DEFAULT_MAX_FAILED = 0.05
"""Share of the videos of a large corpus that may fail by default."""
FEW_FAILURES = 3
"""In a small corpus so many may fail: one bad video of ten does not end the run."""
SMALLEST_CORPUS_PER_FAILURE = 3
"""But no more than a third of the corpus."""
_ROUNDING = 1e-6  # .29 of 100 videos are 29, although .29 * 100 is a little less


class ExtractConfig(Record):
    """Configuration of an extraction; a YAML file with these keys reproduces a target cache."""

    videos: str = Field(
        description="folder (recursive), a video, a list (.txt, .csv, .parquet) or a URL"
    )
    teachers: tuple[TeacherRequest, ...] = Field(
        min_length=1, description="teachers to run, all in one pass over the videos"
    )
    cache: str = Field(description="folder of the target cache, which is created or extended")
    frames: str | None = Field(None, description="folder of the frame store; None: no frame store")
    geometry: FrameGeometry = Field(
        default_factory=FrameGeometry, description="size and quality of stored frames"
    )
    sampling: SamplingConfig = Field(
        default_factory=SamplingConfig, description="which frames the teachers see"
    )
    decode: DecodeConfig = Field(
        default_factory=DecodeConfig, description="settings and limits of ffmpeg"
    )
    compute: ComputeConfig = Field(
        default_factory=ComputeConfig, description="number, place and resources of the workers"
    )
    spool: SpoolConfig = Field(
        default_factory=SpoolConfig, description="folder for downloads of videos named by URL"
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="frames per forward pass of a teacher; auto: 32 on a CPU, on a GPU the size "
        "at which larger batches are no faster. Halved when a GPU runs out of memory",
        json_schema_extra={"unit": "frames"},
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="arithmetic of the forward pass; bf16 and fp16 use autocast. auto: that of the "
        "teachers in the cache, else bf16 on GPUs that have it, and fp32 elsewhere. teacher.json "
        "records what it changes (precision_loss)",
    )
    compile: bool = Field(
        False, description="torch.compile the teachers on a GPU; no effect on a CPU"
    )
    device: Device = Field("auto", description="auto (GPU if available), cpu, cuda, cuda:N")
    unit_rows: int | None = Field(
        None,
        ge=64,
        le=32768,
        multiple_of=64,
        description="rows per unit; None chooses 1,024 .. 32,768 by the size of the corpus",
        json_schema_extra={"unit": "rows"},
    )
    max_failed: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto",
        description="share of the videos that may fail; with more, the run ends in an error. auto: "
        "5 %, or 3 videos if that is more, but no more than a third",
        json_schema_extra={"unit": "share"},
    )
    retry_failed: bool = Field(False, description="try videos again that failed in an earlier run")
    repair: bool = Field(
        False,
        description="verify every byte of the cache, and extract its damaged and missing units: "
        "no video or teacher is added, and no video counts as gone",
    )
    max_gone: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the videos of an existing cache that may be missing from `videos`; "
        "with more, nothing is changed: `videos` or `cache` is probably the wrong folder. Not "
        "checked with keep_gone",
        json_schema_extra={"unit": "share"},
    )
    keep_gone: bool = Field(
        False,
        description="keep videos in training that are in the cache but no longer in `videos`",
    )
    provenance: Annotated[Provenance, NOT_IDENTITY] = Field(
        default_factory=Provenance,
        description="where the cache comes from; shown to those who receive it, and kept as it is "
        "in the cache where it is not given",
    )

    def allowed_failures(self, videos: int) -> int:
        """How many of ``videos`` may fail."""
        if self.max_failed != "auto":
            return math.floor(self.max_failed * videos + _ROUNDING)
        few = min(FEW_FAILURES, videos // SMALLEST_CORPUS_PER_FAILURE)
        return max(int(DEFAULT_MAX_FAILED * videos), few)
