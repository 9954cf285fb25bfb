"""The JSON records of a target cache: manifest and unit commits. See docs/cache-format.md."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from distinit.schemas.base import (
    ExtensibleRecord,
    Name,
    Record,
    Sha256,
    VideoId,
    without_none,
    without_zero_minor,
)
from distinit.schemas.cache_format import CACHE_FORMAT_MINOR, CACHE_FORMAT_VERSION
from distinit.schemas.derivation import Derivation
from distinit.schemas.feature_sums import FeatureFidelitySums
from distinit.schemas.provenance import Provenance
from distinit.schemas.teacher import MAX_CLASSES, Encoding
from distinit.schemas.video import SamplingConfig

__all__ = [
    "CACHE_FORMAT_MINOR",
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

MAX_CAPACITY = 1 << 20
"""Most rows per unit that a reader accepts; a plan has at most 32,768."""
MAX_UNITS = 10_000_000


class CorpusSummary(Record):
    """The videos that the cache is about."""

    digest: Sha256 = Field(
        description="sha256 over the sorted content digests of all videos, including gone ones"
    )
    videos: int = Field(ge=0, description="videos in the corpus, including failed ones")
    failed: int = Field(ge=0, description="videos in the corpus that failed")
    damaged: int = Field(
        0, ge=0, description="videos in the corpus that have targets although frames may be missing"
    )
    frames: int = Field(ge=0, description="decoded frames of all videos that did not fail")
    gone: int = Field(
        0,
        ge=0,
        description="additional videos that were in the corpus in earlier runs: their rows are "
        "kept, but not trained on",
    )


class RowSpace(Record):
    """Rows u*capacity .. (u+1)*capacity-1 belong to unit u. Unused rows are zero."""

    capacity: int = Field(
        ge=64, le=MAX_CAPACITY, multiple_of=64, description="rows per unit; a multiple of 64"
    )
    units: int = Field(ge=0, le=MAX_UNITS, description="number of units")
    rows: int = Field(ge=0, description="rows in use, over all units")

    @property
    def rows_padded(self) -> int:
        """Length of the Zarr arrays."""
        return self.capacity * self.units


class PlanSummary(Record):
    """Digests of ``plan.parquet``, which defines the rows of each video."""

    digest: Sha256 = Field(
        description="sha256 over all columns of the plan, the capacity and the base size"
    )
    rows_digest: Sha256 = Field(
        description="as digest, but without path, size_bytes, mtime_ns and in_corpus: equal for "
        "the same videos, wherever they are stored"
    )
    next_digest: Sha256 | Literal[""] = Field(
        "", description="digest of the plan that a writer is replacing it by; empty otherwise"
    )


class TeacherSummary(Record):
    """A teacher's entry in the manifest."""

    fingerprint: Sha256 = Field(
        description="sha256 over all that determines the teacher's output, see TeacherIdentity"
    )
    record_sha256: Sha256 = Field(
        description="sha256 over the canonical JSON of teacher.json without its fidelity"
    )
    classes: int = Field(ge=1, le=MAX_CLASSES, description="number of values per target")
    label_space: Name = Field(description="name of the set of classes")
    target: Literal["logits", "features"] = Field(description="class logits, or pooled features")
    encoding: Encoding = Field(description="how targets are stored: float16 | int8 | topk:K")
    units_committed: int = Field(ge=0, description="number of units with targets of this teacher")


class CacheManifest(ExtensibleRecord):
    """``manifest.json``: lets a mismatch be detected without reading any other file."""

    newest_minor: ClassVar[int] = CACHE_FORMAT_MINOR

    format: Literal["distinit-target-cache"] = Field(
        "distinit-target-cache", description="name of the record's format"
    )
    format_version: int = Field(
        CACHE_FORMAT_VERSION,
        description="version of the record's format; a reader refuses others",
        json_schema_extra={"const": CACHE_FORMAT_VERSION},
    )
    corpus: CorpusSummary = Field(description="the videos of the cache")
    sampling: SamplingConfig = Field(description="which decoded frames are rows")
    row_space: RowSpace = Field(description="number and size of the units")
    plan: PlanSummary = Field(description="digests of plan.parquet")
    teachers: dict[str, TeacherSummary] = Field(default_factory=dict, description="by teacher id")
    complete: bool = Field(description="whether every unit of every teacher is committed")
    content_digest: Sha256 | Literal[""] = Field(
        description="sha256 over the content of the cache: the same for any number of workers, any "
        "order of work and any interruption; empty while the cache is incomplete"
    )
    derived_from: Derivation | None = Field(
        None,
        description="the caches that this one was made from. None: it was extracted from videos, "
        "and the key is left out",
    )
    provenance: Provenance | None = Field(
        None,
        description="where the cache comes from, as its owner states it. None: not stated, and "
        "the key is left out",
    )

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(without_zero_minor(dump(self)), "derived_from", "provenance")


class FileEntry(Record):
    """Size and sha256 of one committed file."""

    size: int = Field(ge=0, description="bytes")
    sha256: Sha256 = Field(description="sha256 of the file's bytes")


class VideoOutcome(Record):
    """The outcome of one video in one extraction."""

    video_id: VideoId = Field(description="id of the video in the cache")
    status: Literal["ok", "failed", "spilled", "gone"] = Field(
        description="spilled: it has more rows than planned, so they are in a later unit. gone: "
        "it was removed from the corpus before it was decoded"
    )
    frame_count: int = Field(ge=0, description="decoded frames; 0 if failed")
    width: int = Field(ge=0, description="pixels, after rotation")
    height: int = Field(ge=0, description="pixels, after rotation")
    duration_seconds: float = Field(
        ge=0, description="time that the decoded frames span, seconds; 0 if failed"
    )
    error: str | None = Field(
        None, description="why it failed or is gone; None for the other statuses"
    )
    rows: int = Field(
        0, ge=0, description="number of its frames that become rows, in a later unit if spilled"
    )
    decoder_errors: int = Field(
        0,
        ge=0,
        description="errors that ffmpeg reported for a video with status ok; 1000: at least 1000",
    )
    damage: str | None = Field(
        None, description="the damage of a video with status ok; None: not damaged"
    )
    concealed: bool = Field(
        False, description="whether the damage is within frames, and no frame is missing"
    )

    @property
    def is_damaged(self) -> bool:
        """Whether the video is in the cache although frames are, or may be, missing."""
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


_MAX_NATS_SUM = 1e15  # the sum over all units is finite


class _RowSums(Record):
    """Sums over the used rows of one unit. No count may exceed ``frames``."""

    _counts: ClassVar[tuple[str, ...]] = ()

    frames: int = Field(0, ge=0, description="number of the frames that are summed over")

    @model_validator(mode="after")
    def _counts_do_not_exceed_frames(self) -> Self:
        for name in self._counts:
            if getattr(self, name) > self.frames:
                raise ValueError(f"{name} exceeds frames")
        return self


class FidelitySums(_RowSums):
    """The sums over one unit that a FidelityReport is computed from."""

    _counts: ClassVar[tuple[str, ...]] = ("top1_agreements", "filter_flips")

    kl_nats_sum: float = Field(0.0, ge=0, le=_MAX_NATS_SUM, description="KL(fp32 || stored), nats")
    kl_nats_max: float = Field(
        0.0, ge=0, le=_MAX_NATS_SUM, description="largest KL(fp32 || stored) of a frame, nats"
    )
    entropy_error_nats_sum: float = Field(
        0.0, ge=0, le=_MAX_NATS_SUM, description="|entropy difference|, nats"
    )
    top1_agreements: int = Field(
        0, ge=0, description="frames whose most probable class is the same in fp32 and as stored"
    )
    filter_flips: int = Field(
        0,
        ge=0,
        description="frames that a filter at a quartile of the unit's entropies would keep by one "
        "of the two entropies (of the stored target, of the fp32 logits) and drop by the other",
    )
    measured_against: Encoding | None = Field(
        None,
        description="encoding of the source that a derived cache was compared with, in place of "
        "the fp32 logits. None: compared with these, and the key is left out",
    )

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(dump(self), "measured_against")


class OutputSums(_RowSums):
    """The sums over one unit that an OutputReport is computed from."""

    _counts: ClassVar[tuple[str, ...]] = ("ties", "flat", "top_class_frames")

    entropy_nats_sum: float = Field(
        0.0, ge=0, le=_MAX_NATS_SUM, description="sum of the entropies of the frames, nats"
    )
    ties: int = Field(0, ge=0, description="frames whose two largest logits are equal")
    flat: int = Field(0, ge=0, description="frames whose logits are all equal")
    top_class: int = Field(
        0, ge=0, description="the class that is most often the most probable one"
    )
    top_class_frames: int = Field(0, ge=0, description="number of frames with that top class")


_NOT_SEALED = ("feature_fidelity", "feature_precision_loss")
"""Keys of a commit that minor versions have added: older readers do not know them."""


class UnitCommit(ExtensibleRecord):
    """``teachers/<id>/commits/unit-NNNNN.json``: written last. A unit exists if its commit does."""

    newest_minor: ClassVar[int] = CACHE_FORMAT_MINOR

    unit: int = Field(ge=0, description="number of the unit, from 0")
    teacher_fingerprint: Sha256 = Field(
        description="fingerprint of the teacher whose targets these are"
    )
    rows: int = Field(ge=0, description="rows in use in this unit")
    files: dict[str, FileEntry] = Field(description="path relative to the cache -> size, sha256")
    content_sha256: Sha256 = Field(description="sha256 over the values of frames and targets")
    videos: tuple[VideoOutcome, ...] = Field(
        description="videos whose reserved rows end in this unit"
    )
    fidelity: FidelitySums | None = Field(
        None, description="what the encoding changed; None for feature teachers"
    )
    unanswered: tuple[VideoId, ...] = Field(
        (),
        description="videos that were not in the corpus when this teacher was added, and have no "
        "output of it. Their rows are NaN, and are missing once the corpus has the videos again",
    )
    refused: dict[VideoId, str] = Field(
        {},
        description="video -> reason, for videos without a usable output of this teacher that have "
        "targets of earlier teachers. Their rows are NaN; they count as failed in the whole cache",
    )
    answers: OutputSums | None = Field(
        None, description="statistics of the teacher's outputs; None for feature teachers"
    )
    precision_loss: FidelitySums | None = Field(
        None,
        description="what the arithmetic changed, against fp32, over the first frames of a unit "
        "group: in the commit of its first unit. None: not measured, and the key is left out",
    )
    feature_fidelity: FeatureFidelitySums | None = Field(
        None,
        description="what the encoding changed of features. None: these are logits, or it is not "
        "known, and the key is left out",
    )
    feature_precision_loss: FeatureFidelitySums | None = Field(
        None,
        description="as precision_loss, for features. None: not measured, and the key is left out",
    )
    record_sha256: Sha256 = Field(
        description="sha256 over the other fields of this record, without format_minor and the "
        "keys of newer minor versions. It detects damage while the cache has no list of checksums "
        "yet"
    )

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(without_zero_minor(dump(self)), "precision_loss", *_NOT_SEALED)

    @classmethod
    def sealed(cls, **fields: Any) -> Self:
        """A record with these fields, the minor version that they need, and ``record_sha256``."""
        if any(fields.get(name) is not None for name in _NOT_SEALED):
            fields["format_minor"] = CACHE_FORMAT_MINOR
        return cls(**fields, record_sha256="0" * 64).resealed()

    def resealed(self) -> Self:
        """The same record with the ``record_sha256`` of its other fields."""
        return self.model_copy(update={"record_sha256": self.seal()})

    def seal(self) -> str:
        """Hex sha256 over the other fields, without those of newer minor versions."""
        text = self.model_dump_json(exclude={"record_sha256", "format_minor", *_NOT_SEALED})
        return hashlib.sha256(text.encode()).hexdigest()
