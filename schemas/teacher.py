"""Teachers: how one is asked for, and what ``teacher.json`` says of it afterwards."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, field_validator

from distinit.schemas.base import Name, Record, Sha256, differences, flatten, sha256_of
from distinit.schemas.wording import one_line

__all__ = [
    "MAX_CLASSES",
    "PROBE_SUMS",
    "TEACHER_ID_PATTERN",
    "Encoding",
    "FidelityReport",
    "OutputReport",
    "PreprocessSpec",
    "ProbeAnswer",
    "TeacherIdentity",
    "TeacherRecord",
    "TeacherRequest",
    "identity_differences",
    "parse_encoding",
]

MAX_CLASSES = 1 << 20
"""Widest target row. The largest open label spaces have some 20,000 classes."""

PROBE_SUMS = 8
_PROBE_TOLERANCE = 5e-3
_PROBE_TOLERANCE_HALF = 0.2
"""Of the spread of the answer: above what machines differ by, below what edits change. Decision
record 21 has the figures; the second one for networks that compute in 16 bits by themselves."""

_UNINFORMATIVE = 0.99
"""Share of the highest possible entropy, or of all frames with one top class."""
_WORTH_SAYING = 0.01
_MANY_FRAMES = 100

TEACHER_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
"""What may name a folder under ``teachers/``."""

_TOPK = re.compile(r"topk:([1-9][0-9]{0,6})")


def parse_encoding(encoding: str) -> tuple[Literal["float16", "int8", "topk"], int]:
    """Split ``topk:32`` into ("topk", 32); the others have k = 0. Raises ValueError."""
    if encoding == "float16":
        return "float16", 0
    if encoding == "int8":
        return "int8", 0
    match = _TOPK.fullmatch(encoding)
    if match is None:
        raise ValueError(f"encoding {encoding[:40]!r} is none of float16, int8, topk:K")
    return "topk", int(match.group(1))


def _known_encoding(encoding: str) -> str:
    parse_encoding(encoding)
    return encoding


Encoding = Annotated[str, AfterValidator(_known_encoding)]
"""``float16`` | ``int8`` | ``topk:K``."""


class TeacherRequest(Record):
    """One teacher as a user asks for it."""

    name: str = Field(
        description="torchvision name (resnet50, resnet50@IMAGENET1K_V1), efficientnet_lite0, "
        "timm:NAME, places365:ARCH, plugin:package.module:function"
    )
    weights: str | None = Field(
        None, description="local weights file; None takes the named weights from the local cache"
    )
    id: str | None = Field(None, description="folder name under teachers/; None derives it")
    resize: Literal["exact", "fast"] = Field(
        "exact",
        description="exact: torchvision's antialiased resize of full-size frames; "
        "fast: ffmpeg scales (bilinear). Part of the teacher's identity",
    )
    flip: bool = Field(
        False,
        description="show the teacher mirrored frames, so that distill can give flipped clips the "
        "targets of flipped frames. Part of the teacher's identity",
    )
    target: Literal["logits", "features"] = Field(
        "logits", description="class logits, or pooled features (no entropy)"
    )
    encoding: Encoding = Field("float16", description="float16 | int8 | topk:K")

    @field_validator("id")
    @classmethod
    def _safe_id(cls, value: str | None) -> str | None:
        if value is not None and not TEACHER_ID_PATTERN.fullmatch(value):
            raise ValueError("a teacher id uses letters, digits and . _ @ + - only")
        return value


class PreprocessSpec(Record):
    """From a decoded RGB frame to the teacher's input. Enough to repeat it exactly."""

    resize_mode: Literal["short_edge", "squash"] = Field(
        description="scale the short edge to resize_size, or both edges (Places365)"
    )
    resize_size: int = Field(ge=1, description="pixels")
    crop_size: int = Field(ge=1, description="centre crop, pixels")
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    mean: tuple[float, float, float] = Field(
        description="per channel in the order of channel_order, of values in 0..1"
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        description="as mean; greater than 0"
    )
    channel_order: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["exact", "fast"] = Field("exact", description="as TeacherRequest.resize")
    flip: bool = Field(False, description="the input is mirrored left to right, as the last step")


class ProbeAnswer(Record):
    """What a teacher says of a fixed picture, in fp32: edited code shows here and nowhere else."""

    top_classes: tuple[int, ...] = Field(max_length=100, description="the largest value first")
    top_values: tuple[float, ...] = Field(max_length=100, description="of these classes")
    sums: tuple[float, ...] = Field(
        min_length=PROBE_SUMS,
        max_length=PROBE_SUMS,
        description="of all values with fixed signs, divided by sqrt(classes)",
    )
    spread: float = Field(ge=0, description="standard deviation of the values")
    half: bool = Field(
        False, description="the network itself holds or gives values of 16 bits: less is compared"
    )

    @property
    def tolerance(self) -> float:
        """Largest deviation that counts as rounding."""
        return _PROBE_TOLERANCE_HALF if self.half else _PROBE_TOLERANCE

    def deviation(self, other: ProbeAnswer) -> float:
        """Largest difference of a sum, as a share of the spread (of ``self``, or of the size of
        its values where they hardly differ)."""
        largest = max(map(abs, self.top_values), default=0.0)
        scale = max(self.spread, 1e-3 * largest) or 1.0
        return max(abs(a - b) for a, b in zip(self.sums, other.sums, strict=True)) / scale

    def __str__(self) -> str:
        pairs = zip(self.top_classes, self.top_values, strict=False)
        return ", ".join(f"class {number} {value:.4g}" for number, value in pairs)


class TeacherIdentity(Record):
    """Everything that changes what a teacher says. Its digest is the teacher's fingerprint."""

    architecture: Name = Field(description="e.g. torchvision/resnet50")
    weights_sha256: Sha256 = Field(
        description="over names, dtypes, shapes and bytes of all tensors"
    )
    preprocessing: PreprocessSpec
    target: Literal["logits", "features"] = "logits"
    classes: int = Field(ge=1, le=MAX_CLASSES, description="width of one target row")
    label_space: Name = Field(description="e.g. imagenet-1k, places365, or a digest of the names")
    label_names: tuple[str, ...] = Field(description="class names in index order; empty: unknown")
    probe: ProbeAnswer | None = Field(
        None,
        description="the answer to a fixed picture; compared with a tolerance, and therefore not "
        "part of the fingerprint. None: not known",
    )

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over all fields but ``probe``; ``flip`` counts where it is true only.

        So the fingerprints of caches from before there was a ``flip`` stay what they were.
        """
        fields = self.model_dump(mode="json", exclude={"probe"})
        if not self.preprocessing.flip:
            del fields["preprocessing"]["flip"]
        return sha256_of(fields)


def identity_differences(there: TeacherIdentity, now: TeacherIdentity) -> list[str]:
    """``field: A there, B now`` for every field in which two teachers differ; empty for the same.

    Of class names only the number that differ and the first; answers to the probe picture differ
    beyond what machines differ by.
    """
    before, after = (
        flatten(identity.model_dump(mode="json", exclude={"label_names", "probe"}))
        for identity in (there, now)
    )
    found = differences(before, after)
    found += _label_differences(there.label_names, now.label_names)
    if there.probe is not None and now.probe is not None:
        found += _probe_differences(there.probe, now.probe)
    return found


def _probe_differences(there: ProbeAnswer, now: ProbeAnswer) -> list[str]:
    deviation = there.deviation(now)
    if deviation <= there.tolerance:
        return []
    return [
        f"answer to the probe picture: {there} there, {now} now ({deviation:.2g} of its spread, "
        f"{there.tolerance:g} is allowed for rounding)"
    ]


def _label_differences(there: tuple[str, ...], now: tuple[str, ...]) -> list[str]:
    if there == now:
        return []
    if len(there) != len(now):
        return [f"label_names: {len(there)} there, {len(now)} now"]
    differing = [i for i, (a, b) in enumerate(zip(there, now, strict=True)) if a != b]
    first = differing[0]
    return [
        f"label_names: {len(differing)} of {len(there)} differ, first that of class {first}: "
        f"{there[first][:80]!r} there, {now[first][:80]!r} now"
    ]


class FidelityReport(Record):
    """What the stored encoding lost against the fp32 logits, measured while writing."""

    frames: int = Field(ge=0, description="frames measured")
    mean_kl_nats: float = Field(ge=0, description="mean KL(fp32 || stored), nats")
    max_kl_nats: float = Field(ge=0, description="largest KL(fp32 || stored), nats")
    mean_entropy_error_nats: float = Field(ge=0, description="mean |entropy difference|, nats")
    top1_agreement: float = Field(ge=0, le=1, description="share of frames with the same top class")
    filter_flips: float = Field(
        ge=0,
        le=1,
        description="share of frames that a filter at a quartile of the entropy would judge "
        "differently by the stored entropy than by that of the fp32 logits",
    )

    def __str__(self) -> str:
        return (
            f"KL mean {self.mean_kl_nats:.2g}, max {self.max_kl_nats:.2g} nats; entropy of the "
            f"stored targets {self.mean_entropy_error_nats:.2g} nats off; top-1 kept "
            f"{self.top1_agreement:.2%}; filter flips {self.filter_flips:.2%}"
        )


class OutputReport(Record):
    """Whether a teacher tells the frames of a corpus apart."""

    frames: int = Field(ge=1, description="rows of the cache")
    mean_entropy_nats: float = Field(ge=0)
    highest_possible_nats: float = Field(ge=0, description="ln(classes)")
    tied_fraction: float = Field(
        ge=0, le=1, description="share of frames whose two largest logits are equal"
    )
    flat_fraction: float = Field(ge=0, le=1, description="share whose logits are all equal")
    top_class: int = Field(ge=0, description="most often the most probable class of a frame")
    top_class_name: str = Field("", description="empty: the teacher names no classes")
    top_class_fraction: float = Field(ge=0, le=1, description="how often, at least")

    @property
    def warnings(self) -> list[str]:
        """What makes the targets say little, a phrase each; empty for an informative teacher."""
        said = []
        if self.mean_entropy_nats >= _UNINFORMATIVE * self.highest_possible_nats:
            said.append(
                f"mean entropy {self.mean_entropy_nats:.3f} of at most "
                f"{self.highest_possible_nats:.3f} nats: its targets say next to nothing"
            )
        if self.flat_fraction >= _WORTH_SAYING:
            said.append(f"all logits equal for {self.flat_fraction:.1%} of the frames")
        elif self.tied_fraction >= _WORTH_SAYING:
            said.append(
                f"a tie at the top for {self.tied_fraction:.1%} of the frames: the class with the "
                "lower number counts"
            )
        if self.top_class_fraction >= _UNINFORMATIVE and self.frames >= _MANY_FRAMES:
            label = f" ({one_line(self.top_class_name)})" if self.top_class_name else ""
            said.append(
                f"class {self.top_class}{label} is the most probable one for "
                f"{self.top_class_fraction:.1%} of the frames"
            )
        return said


class TeacherRecord(Record):
    """``teachers/<id>/teacher.json``."""

    id: str
    fingerprint: Sha256
    identity: TeacherIdentity
    encoding: Encoding
    name: Name = Field("", description="as --teacher named it")
    weights_file: Name | None = Field(
        None, description="name of the file that --weights gave, without its folder"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="arithmetic of the forward pass"
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        description="frames per forward, never across two videos; auto: as many as paid"
    )
    compiled: bool = Field(False, description="by torch.compile, where the forward ran on a GPU")
    device: str | None = Field(
        None,
        description="where the forward ran, as far as known (auto: a GPU where there was one). "
        "Only cpu promises the same bits for any batch size, number of threads and workers",
    )
    software: dict[str, str] = Field(description="versions of torch, torchvision, ffmpeg, distinit")
    fidelity: FidelityReport | None = None
