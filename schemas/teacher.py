"""Teachers: the request for one, its identity, and its record in a cache (``teacher.json``)."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from distinit.schemas.base import (
    ExtensibleRecord,
    Name,
    Record,
    Sha256,
    differences,
    flatten,
    sha256_of,
    without_none,
    without_zero_minor,
)
from distinit.schemas.cache_format import CACHE_FORMAT_MINOR
from distinit.schemas.output_reports import FeatureFidelityReport, FidelityReport
from distinit.schemas.pooling import Pool, pool_cells
from distinit.schemas.probe_output import ProbeOutput
from distinit.schemas.vocabulary import Relabelling
from distinit.schemas.wording import did_you_mean, one_line, shown

__all__ = [
    "LOSS_KEYS",
    "MAX_CLASSES",
    "TEACHER_ID_PATTERN",
    "Encoding",
    "PreprocessSpec",
    "TeacherIdentity",
    "TeacherRecord",
    "TeacherRequest",
    "WeightsRecipe",
    "identity_differences",
    "parse_encoding",
]

MAX_CLASSES = 1 << 20
"""Most values per target. The largest open label spaces have about 20,000 classes."""

LOSS_KEYS = ("fidelity", "precision_loss", "feature_fidelity", "feature_precision_loss")
"""Keys of a record that its commits give: what encoding and arithmetic changed."""

TEACHER_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
"""Valid names of folders under ``teachers/``."""

_TOPK = re.compile(r"topk:([1-9][0-9]{0,6})")


def parse_encoding(encoding: str) -> tuple[Literal["float16", "int8", "topk"], int]:
    """Split ``topk:32`` into ("topk", 32); the others have k = 0. ValueError if unknown."""
    if encoding == "float16":
        return "float16", 0
    if encoding == "int8":
        return "int8", 0
    match = _TOPK.fullmatch(encoding)
    if match is None:
        guess = did_you_mean(encoding[:40], ("float16", "int8", "topk:32"))
        raise ValueError(
            f"encoding {shown(encoding)} is none of float16, int8, topk:K"
            f"{f'; {guess}' if guess else ''}"
        )
    return "topk", int(match.group(1))


def _known_encoding(encoding: str) -> str:
    parse_encoding(encoding)
    return encoding


_ENCODING_SCHEMA = {"type": "string", "pattern": "^(float16|int8|topk:[1-9][0-9]{0,6})$"}

Encoding = Annotated[str, AfterValidator(_known_encoding), WithJsonSchema(_ENCODING_SCHEMA)]
"""``float16`` | ``int8`` | ``topk:K``."""

EarlierEncodings = Annotated[tuple[Encoding, ...], Field(min_length=1, max_length=20)]


class TeacherRequest(Record):
    """A teacher as requested by a user."""

    name: str = Field(
        description="torchvision name (resnet50 means resnet50@IMAGENET1K_V1; also "
        "resnet50@IMAGENET1K_V2), efficientnet_lite0, "
        "timm:NAME, places365:ARCH, plugin:package.module:function"
    )
    weights: str | None = Field(
        None,
        description="local weights file; None: the published weights, from torchvision's local "
        "folder or an installed package",
    )
    id: str | None = Field(
        None, description="folder name under teachers/; None derives it from name and weights"
    )
    resize: Literal["exact", "fast"] = Field(
        "exact",
        description="exact: torchvision's antialiased resize of full-size frames; "
        "fast: bilinear scaling by ffmpeg. Part of the teacher's identity",
    )
    flip: bool = Field(
        False,
        description="run the teacher on mirrored frames, so that distill has targets for flipped "
        "clips. Part of the teacher's identity",
    )
    target: Literal["logits", "features"] = Field(
        "logits", description="class logits, or pooled features (no entropy)"
    )
    pool: Pool | None = Field(
        None,
        description="what a feature row holds: cls | mean | cls+mean | grid:G | head. None: what "
        "the network passes to its last layer. Needs target features",
    )
    encoding: Encoding = Field("float16", description="float16 | int8 | topk:K")

    @field_validator("id")
    @classmethod
    def _safe_id(cls, value: str | None) -> str | None:
        if value is not None and not TEACHER_ID_PATTERN.fullmatch(value):
            raise ValueError("a teacher id uses letters, digits and . _ @ + - only")
        return value

    @model_validator(mode="after")
    def _pool_needs_features(self) -> Self:
        if self.pool is not None and self.target != "features":
            raise ValueError(f"pool {self.pool} needs target features")
        return self


class PreprocessSpec(Record):
    """All settings that turn a decoded RGB frame into the teacher's input."""

    resize_mode: Literal["short_edge", "squash"] = Field(
        description="short_edge: scale the short edge to resize_size; squash: both (Places365)"
    )
    resize_size: int = Field(ge=1, description="pixels")
    crop_size: int = Field(ge=1, description="centre crop, pixels")
    interpolation: Literal["bilinear", "bicubic"] = Field(
        "bilinear", description="how pixels are interpolated when scaling"
    )
    antialias: bool = Field(True, description="whether scaling down is antialiased")
    mean: tuple[float, float, float] = Field(
        description="mean of each channel, of values in 0..1, in the order of channel_order"
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        description="standard deviation of each channel, in the same order"
    )
    channel_order: Literal["rgb", "bgr"] = Field(
        "rgb", description="order of the colour channels of the input"
    )
    resize: Literal["exact", "fast"] = Field("exact", description="as TeacherRequest.resize")
    flip: bool = Field(
        False, description="whether the input is mirrored left to right, as the last step"
    )


class TeacherIdentity(Record):
    """Everything that determines a teacher's output. Its digest is the teacher's fingerprint."""

    architecture: Name = Field(description="e.g. torchvision/resnet50")
    weights_sha256: Sha256 = Field(
        description="sha256 over names, dtypes, shapes and bytes of all tensors"
    )
    preprocessing: PreprocessSpec = Field(description="how a frame becomes the input")
    target: Literal["logits", "features"] = Field(
        "logits", description="class logits, or pooled features"
    )
    pool: Pool | None = Field(
        None,
        description="what a feature row holds: cls | mean | cls+mean | grid:G | head. None: "
        "logits, or features as the network passes them to its last layer; the key is left out",
    )
    classes: int = Field(ge=1, le=MAX_CLASSES, description="number of values per target")
    label_space: Name = Field(description="e.g. imagenet-1k, places365, or a digest of the names")
    label_names: tuple[str, ...] = Field(description="class names in index order; empty: unknown")
    probe: ProbeOutput | None = Field(
        None,
        description="output for a fixed picture; it is compared with a tolerance, and therefore "
        "not part of the fingerprint. None: not known",
    )
    relabelled: Relabelling | None = Field(
        None,
        description="the stored features and the vocabulary that the logits were computed from. "
        "None: the network's own outputs, and the key is left out",
    )

    @model_validator(mode="after")
    def _row_has_whole_cells(self) -> Self:
        if self.pool is None:
            return self
        if self.target != "features":
            raise ValueError(f"pool {self.pool} needs target features")
        if self.classes % self.cells:
            raise ValueError(f"{self.classes} values are not {self.cells} cells of {self.pool}")
        return self

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(dump(self), "pool", "relabelled")

    @property
    def cells(self) -> int:
        """Cells of a feature row: G x G for pool ``grid:G``, otherwise 1."""
        return pool_cells(self.pool)

    @property
    def channels(self) -> int:
        """Values per cell: a row of a grid is [cells, channels], flattened."""
        return self.classes // self.cells

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over all fields except ``probe``, and except ``flip`` if it is false.

        Caches that are older than ``flip``, ``pool`` or ``relabelled`` have the same fingerprints
        as before.
        """
        fields = self.model_dump(mode="json", exclude={"probe"})
        if not self.preprocessing.flip:
            del fields["preprocessing"]["flip"]
        return sha256_of(fields)


def identity_differences(
    there: TeacherIdentity, now: TeacherIdentity, sides: tuple[str, str] = ("there", "now")
) -> list[str]:
    """``field: A there, B now`` for every field in which two teachers differ.

    Differing class names are counted, and only the first one is shown. Probe outputs count as
    different if they differ by more than rounding. ``sides``: as of ``differences``.
    """
    before, after = (
        flatten(identity.model_dump(mode="json", exclude={"label_names", "probe"}))
        for identity in (there, now)
    )
    found = differences(before, after, sides=sides)
    found += _label_differences(there.label_names, now.label_names, sides)
    if there.probe is not None and now.probe is not None:
        found += _probe_differences(there.probe, now.probe, sides)
    return found


def _probe_differences(there: ProbeOutput, now: ProbeOutput, sides: tuple[str, str]) -> list[str]:
    deviation = there.deviation(now)
    if deviation <= there.tolerance:
        return []
    return [
        f"output for the probe picture: {there} {sides[0]}, {now} {sides[1]} (they differ by "
        f"{deviation:.2g} of its spread; {there.tolerance:g} is allowed for rounding)"
    ]


def _label_differences(
    there: tuple[str, ...], now: tuple[str, ...], sides: tuple[str, str]
) -> list[str]:
    if there == now:
        return []
    if len(there) != len(now):
        return [f"label_names: {len(there)} {sides[0]}, {len(now)} {sides[1]}"]
    differing = [i for i, (a, b) in enumerate(zip(there, now, strict=True)) if a != b]
    first = differing[0]
    return [
        f"label_names: {len(differing)} of {len(there)} differ, the first at class {first}: "
        f"{shown(there[first])} {sides[0]}, {shown(now[first])} {sides[1]}"
    ]


class WeightsRecipe(Record):
    """How the weights were trained, as far as it changes how confident the outputs are."""

    name: Name = Field(description="name of the weights or of their recipe, e.g. IMAGENET1K_V1")
    source: Name = Field("", description="where it is described")
    softened_by: tuple[Name, ...] | None = Field(
        None,
        max_length=20,
        description="techniques that train a network to be less confident: label smoothing, mixup, "
        "CutMix. Empty: none of them; None: not known",
    )

    def __str__(self) -> str:
        name = one_line(self.name)
        if self.softened_by is None:
            return f"{name}, whose recipe is not known here"
        if not self.softened_by:
            return f"{name}, trained without label smoothing, mixup or CutMix"
        techniques = ", ".join(map(one_line, self.softened_by))
        return f"{name}, trained with {techniques}: its entropies are higher"


class TeacherRecord(ExtensibleRecord):
    """``teachers/<id>/teacher.json``."""

    newest_minor: ClassVar[int] = CACHE_FORMAT_MINOR

    id: str = Field(description="name of the folder under teachers/")
    fingerprint: Sha256 = Field(description="sha256 over `identity` without its probe")
    identity: TeacherIdentity = Field(description="all that determines the outputs")
    encoding: Encoding = Field(description="how targets are stored: float16 | int8 | topk:K")
    name: Name = Field("", description="name given with --teacher")
    weights_file: Name | None = Field(
        None, description="name of the file given with --weights, without its folder"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="arithmetic of the forward pass"
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        description="frames per forward pass; auto: the size measured as best"
    )
    compiled: bool = Field(
        False, description="whether torch.compile was used, which only has an effect on a GPU"
    )
    device: str | None = Field(
        None,
        description="device of the forward pass, if known (auto: a GPU if available). Only on cpu "
        "are the targets bitwise equal for any batch size, number of threads and workers",
    )
    software: dict[str, str] = Field(
        description="versions of torch, torchvision, ffmpeg, distinit; lock: sha256 of the lock "
        "file, which has those of all packages (of what is installed, if there is no lock file)"
    )
    fidelity: FidelityReport | None = Field(
        None,
        description="what the encoding changed; None for features, and until an extraction ends",
    )
    recipe: WeightsRecipe | None = Field(
        None,
        description="how the weights were trained. None: not known, and the key is left out, as in "
        "caches that are older than it",
    )
    precision_loss: FidelityReport | None = Field(
        None,
        description="what the arithmetic changed, against fp32, over the first frames of each unit "
        "group. None: the precision is fp32, or these are features, and the key is left out",
    )
    feature_fidelity: FeatureFidelityReport | None = Field(
        None,
        description="what the encoding changed of features. None: these are logits, or it is not "
        "known, and the key is left out",
    )
    feature_precision_loss: FeatureFidelityReport | None = Field(
        None, description="as precision_loss, for features. None: the key is left out"
    )
    encoded_from: EarlierEncodings | None = Field(
        None,
        description="encodings that the targets had before, the first one first, in a cache that "
        "was encoded from another one. None: encoded from fp32, and the key is left out",
    )

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        later = ("recipe", "precision_loss", "feature_fidelity", "feature_precision_loss")
        return without_none(without_zero_minor(dump(self)), *later, "encoded_from")

    @property
    def losses(self) -> tuple[FidelityReport | FeatureFidelityReport | None, ...]:
        """What the encoding changed, and what the arithmetic did, of logits or of features."""
        if self.identity.target == "features":
            return self.feature_fidelity, self.feature_precision_loss
        return self.fidelity, self.precision_loss
