"""The JSON records of a target cache: manifest, unit commits. See ARCHITECTURE.md."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from distinit.schemas.base import Name, Record, Sha256, VideoId
from distinit.schemas.teacher import MAX_CLASSES, Encoding
from distinit.schemas.video import SamplingConfig

__all__ = [
    "CACHE_FORMAT_VERSION",
    "MAX_CAPACITY",
    "MAX_UNITS",
    "CacheManifest",
    "CorpusSummary",
    "FidelitySums",
    "FileEntry",
    "OutputSums",
    "PlanSummary",
    "RowSpace",
    "TeacherSummary",
    "UnitCommit",
    "VideoOutcome",
    "failed_outcome",
]

CACHE_FORMAT_VERSION = 2

MAX_CAPACITY = 1 << 20
"""Most rows of one unit; what is planned has at most 32,768."""
MAX_UNITS = 10_000_000


class CorpusSummary(Record):
    """Which videos the cache speaks of."""

    digest: Sha256 = Field(
        description="sha256 over the sorted content digests of all videos, gone ones too"
    )
    videos: int = Field(ge=0, description="that the corpus has, failed ones too")
    failed: int = Field(ge=0, description="of those")
    damaged: int = Field(0, ge=0, description="of those: they are ok, but may lack frames")
    frames: int = Field(ge=0, description="decoded frames of those that are ok")
    gone: int = Field(
        0,
        ge=0,
        description="further videos, which the corpus had in earlier runs: their rows are kept, "
        "and not trained on",
    )


class RowSpace(Record):
    """Rows u*capacity .. (u+1)*capacity-1 belong to unit u. Unused rows stay zero."""

    capacity: int = Field(
        ge=64, le=MAX_CAPACITY, multiple_of=64, description="rows of one unit; a multiple of 64"
    )
    units: int = Field(ge=0, le=MAX_UNITS)
    rows: int = Field(ge=0, description="rows in use, over all units")

    @property
    def rows_padded(self) -> int:
        """Length of the Zarr arrays."""
        return self.capacity * self.units


class PlanSummary(Record):
    """What ``plan.parquet`` must say: it decides which rows belong to which video."""

    digest: Sha256 = Field(description="over all columns of the plan, its capacity and base size")
    rows_digest: Sha256 = Field(
        description="the same without path, size_bytes, mtime_ns and in_corpus, which say where "
        "the videos are: the same videos give the same again"
    )
    next_digest: Sha256 | Literal[""] = Field(
        "", description="of the plan that a writer is putting in its place; empty when it is done"
    )


class TeacherSummary(Record):
    """One line of the manifest per teacher."""

    fingerprint: Sha256
    record_sha256: Sha256 = Field(
        description="over the canonical JSON of teacher.json without its fidelity"
    )
    classes: int = Field(ge=1, le=MAX_CLASSES)
    label_space: Name
    target: Literal["logits", "features"]
    encoding: Encoding
    units_committed: int = Field(ge=0)


class CacheManifest(Record):
    """``manifest.json``: enough to refuse a mismatch in under a second."""

    format: Literal["distinit-target-cache"] = "distinit-target-cache"
    format_version: int = CACHE_FORMAT_VERSION
    corpus: CorpusSummary
    sampling: SamplingConfig
    row_space: RowSpace
    plan: PlanSummary
    teachers: dict[str, TeacherSummary] = Field(default_factory=dict)
    complete: bool = Field(description="every unit of every teacher is committed")
    content_digest: Sha256 | Literal[""] = Field(
        description="sha256 over what the cache says: equal for any worker count, order or "
        "interruption; empty while the cache is not complete"
    )


class FileEntry(Record):
    """Size and sha256 of one committed file."""

    size: int = Field(ge=0, description="bytes")
    sha256: Sha256


class VideoOutcome(Record):
    """What became of one video in one extraction."""

    video_id: VideoId
    status: Literal["ok", "failed", "spilled", "gone"] = Field(
        description="spilled: more rows than planned; its rows lie in a later unit. gone: it was "
        "removed from the corpus before it was decoded"
    )
    frame_count: int = Field(ge=0, description="decoded frames; 0 when failed")
    width: int = Field(ge=0, description="pixels, after rotation")
    height: int = Field(ge=0, description="pixels, after rotation")
    duration_seconds: float = Field(ge=0)
    error: str | None = None
    rows: int = Field(
        0, ge=0, description="frames of it that become rows; rows it has, unless it is spilled"
    )
    decoder_errors: int = Field(
        0, ge=0, description="errors that ffmpeg reported of a video that is ok; 1000: or more"
    )
    damage: str | None = Field(
        None, description="what is wrong with a video that is ok; None if nothing is"
    )
    concealed: bool = Field(
        False, description="the damage lies within pictures: no frame is missing"
    )

    @property
    def is_damaged(self) -> bool:
        """Whether it is in the cache although frames are missing, or may be."""
        return self.status == "ok" and self.damage is not None and not self.concealed


def failed_outcome(video_id: str, reason: str) -> VideoOutcome:
    """The outcome of a video that is not in the cache."""
    return VideoOutcome(
        video_id=video_id,
        status="failed",
        frame_count=0,
        width=0,
        height=0,
        duration_seconds=0.0,
        error=reason,
    )


_MAX_NATS_SUM = 1e15  # finite however many units are added up


class _RowSums(Record):
    """Sums over the used rows of one unit: no count of frames exceeds ``frames``."""

    _counts: ClassVar[tuple[str, ...]] = ()

    frames: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _counts_are_of_frames(self) -> Self:
        for name in self._counts:
            if getattr(self, name) > self.frames:
                raise ValueError(f"{name} exceeds frames")
        return self


class FidelitySums(_RowSums):
    """Additive parts of a FidelityReport."""

    _counts: ClassVar[tuple[str, ...]] = ("top1_agreements", "filter_flips")

    kl_nats_sum: float = Field(0.0, ge=0, le=_MAX_NATS_SUM, description="KL(fp32 || stored), nats")
    kl_nats_max: float = Field(0.0, ge=0, le=_MAX_NATS_SUM)
    entropy_error_nats_sum: float = Field(
        0.0, ge=0, le=_MAX_NATS_SUM, description="|entropy difference|, nats"
    )
    top1_agreements: int = Field(0, ge=0)
    filter_flips: int = Field(
        0, ge=0, description="frames judged differently at a quartile of the unit's entropies"
    )


class OutputSums(_RowSums):
    """Additive parts of an OutputReport."""

    _counts: ClassVar[tuple[str, ...]] = ("ties", "flat", "top_class_frames")

    entropy_nats_sum: float = Field(0.0, ge=0, le=_MAX_NATS_SUM)
    ties: int = Field(0, ge=0, description="frames whose two largest logits are equal")
    flat: int = Field(0, ge=0, description="frames whose logits are all equal")
    top_class: int = Field(0, ge=0, description="most often the most probable class of a frame")
    top_class_frames: int = Field(0, ge=0, description="how often")


class UnitCommit(Record):
    """``teachers/<id>/commits/unit-NNNNN.json``: written last; its presence is the truth."""

    unit: int = Field(ge=0)
    teacher_fingerprint: Sha256
    rows: int = Field(ge=0, description="rows in use in this unit")
    files: dict[str, FileEntry] = Field(description="path relative to the cache -> size, sha256")
    content_sha256: Sha256 = Field(description="over the logical values of frames and targets")
    videos: tuple[VideoOutcome, ...] = Field(
        description="videos whose reserved rows end in this unit"
    )
    fidelity: FidelitySums | None = Field(None, description="None for feature teachers")
    unanswered: tuple[VideoId, ...] = Field(
        (),
        description="videos that were gone when this teacher came: it never saw them. Their rows "
        "are NaN; they count as missing once the corpus has the videos again",
    )
    refused: dict[VideoId, str] = Field(
        {},
        description="videos of other teachers that this one has no usable answer for, and why: "
        "its rows of them are NaN, and they count as failed for the whole cache",
    )
    answers: OutputSums | None = Field(None, description="None for feature teachers")
    record_sha256: Sha256 = Field(
        description="over the other fields of this record: nothing else would tell that one of "
        "them was damaged while the cache has no list of checksums yet"
    )

    @classmethod
    def sealed(cls, **fields: Any) -> Self:
        """A record of ``fields`` with its ``record_sha256``."""
        return cls(**fields, record_sha256="0" * 64).resealed()

    def resealed(self) -> Self:
        """The same record with the ``record_sha256`` that its other fields give."""
        return self.model_copy(update={"record_sha256": self.seal()})

    def seal(self) -> str:
        """Hex sha256 over the other fields."""
        text = self.model_dump_json(exclude={"record_sha256"})
        return hashlib.sha256(text.encode()).hexdigest()
