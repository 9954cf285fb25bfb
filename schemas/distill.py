"""Configuration of `distinit distill`: target cache + frame store -> student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from distinit.schemas.base import NOT_IDENTITY, Record, without_none
from distinit.schemas.losses import DISTRIBUTION_LOSSES, Loss, Normalize
from distinit.schemas.training import (
    ClipConfig,
    OptimizerConfig,
    RuntimeConfig,
    StudentConfig,
    with_fitting_batch,
    with_flow_pixels,
)

__all__ = ["DistillConfig", "FilterConfig", "TargetConfig"]


class FilterConfig(Record):
    """Confidence filter: keeps clips whose target has a low entropy (paper section 3)."""

    max_entropy_nats: float | None = Field(
        None,
        ge=0,
        description="largest entropy of a target that is kept",
        json_schema_extra={"unit": "nats", "source": "paper, section 3"},
    )
    keep_fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the clips to keep: the threshold is this quantile of the entropies "
        "of their targets, for clips as they are drawn (recorded in thresholds.json)",
        json_schema_extra={"unit": "share", "source": "paper, Fig. 6"},
    )

    @property
    def can_drop(self) -> bool:
        """Whether it can drop a clip."""
        return self.max_entropy_nats is not None or (self.keep_fraction or 1) < 1

    @model_validator(mode="after")
    def _one_threshold(self) -> FilterConfig:
        if self.max_entropy_nats is not None and self.keep_fraction is not None:
            raise ValueError("set max_entropy_nats or keep_fraction, not both")
        return self


class TargetConfig(Record):
    """How the stored targets of frames become the target of a clip (paper sections 3, 4.3)."""

    teacher: str | None = Field(
        None, description="teacher id in the cache; None: the only teacher of the cache"
    )
    vocabulary: Annotated[str | None, NOT_IDENTITY] = Field(
        None,
        description="vocabulary file (safetensors) that turns the stored features of the teacher "
        "into logits: scale x cosine to its text embeddings. Its digest counts for the identity of "
        "the run, its place does not. None: the stored targets, and the key is left out",
    )
    flipped_teacher: str | None = Field(
        None,
        description="id of the same teacher over mirrored frames (extracted with flip: true), "
        "whose targets are used for flipped clips. None: a flipped clip has the target of the "
        "unflipped frames, as in the paper",
    )
    pick: Literal["center", "random", "uniform", "k_random", "all"] = Field(
        "random",
        description="frames of the clip that make its target; random: one random frame",
        json_schema_extra={"source": "paper: random"},
    )
    k: int = Field(
        1,
        ge=1,
        description="number of frames for pick uniform and k_random",
        json_schema_extra={"unit": "frames"},
    )
    average: Literal["logits", "probabilities"] = Field(
        "logits",
        description="average logits before the softmax, or probabilities after it",
        json_schema_extra={"source": "paper: logits"},
    )
    temperature: float = Field(
        1.0,
        gt=0,
        description="softmax temperature of targets and outputs",
        json_schema_extra={"unit": "none", "source": "paper: 1"},
    )
    loss: Literal["auto"] | Loss = Field(
        "auto",
        description="loss between output and target. auto: cross_entropy for logits; for features "
        "cosine+smooth_l1, or cosine if the cache has no statistics of them. mse (half the squared "
        "distance of the logits) needs a tenth of the learning rate, which is not set "
        "automatically. For normalized features and in a sum, mse is a mean over the channels",
        json_schema_extra={
            "source": "paper: cross_entropy; AM-RADIO (2312.06709): cosine and smooth L1"
        },
    )
    normalize: Literal["auto"] | Normalize = Field(
        "auto",
        description="of the vectors of a feature teacher, from their statistics in the cache. "
        "standardize: each channel to mean 0 and variance 1; phi_s: a rotation and one scale, "
        "after which all channels have variance 1. auto: phi_s if loss is auto and the cache has "
        "statistics, else none. Teachers of logits ignore it if the run has features too",
        json_schema_extra={"source": "PHI-S (2410.01680)"},
    )
    smooth_l1_beta: float = Field(
        1.0,
        gt=0,
        description="difference from which smooth_l1 grows linearly; below it, quadratically",
        json_schema_extra={
            "unit": "values of the target: standard deviations if normalized",
            "source": "PyTorch: 1",
        },
    )
    weight: float = Field(
        1.0,
        ge=0,
        description="weight of this teacher's loss in the sum",
        json_schema_extra={"unit": "none"},
    )
    filter: FilterConfig = Field(default_factory=FilterConfig, description="confidence filter")

    @model_validator(mode="after")
    def _logit_losses(self) -> TargetConfig:
        if self.loss != "auto" and self.loss not in DISTRIBUTION_LOSSES:
            if self.average == "probabilities":
                raise ValueError(f"{self.loss} compares logits: average must be logits")
            if self.temperature != 1:
                raise ValueError(f"{self.loss} compares logits: temperature must be 1")
        return self

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave keys out where they say what versions without them did: digests stay the same."""
        fields = without_none(dump(self), "vocabulary")
        if self.normalize == "auto" or (self.normalize == "none" and self.loss != "auto"):
            fields.pop("normalize", None)
        if self.smooth_l1_beta == 1:
            fields.pop("smooth_l1_beta", None)
        return fields

    def with_absolute_paths(self) -> TargetConfig:
        """The same target, for a process with another working folder."""
        if self.vocabulary is None:
            return self
        return self.model_copy(update={"vocabulary": str(Path(self.vocabulary).absolute())})


class DistillConfig(Record):
    """Everything that determines a distilled student, as one YAML file."""

    cache: Annotated[str, NOT_IDENTITY] = Field(
        description="folder of the target cache, or its URL (s3://, https://)"
    )
    frames: Annotated[str, NOT_IDENTITY] = Field(description="folder of the frame store")
    match: Annotated[str | None, NOT_IDENTITY] = Field(
        None,
        description="mapping file of `cache match`, if the frame store holds the receiver's own "
        "copies of the videos; which copies it maps counts for the identity of the run",
    )
    read_through_gib: Annotated[float, NOT_IDENTITY] = Field(
        20.0,
        gt=0,
        description="of a cache at a URL, shards are received when they are first read, and kept "
        "on this machine up to this size",
        json_schema_extra={"unit": "GiB"},
    )
    out: Annotated[str, NOT_IDENTITY] = Field(
        description="run directory, which belongs to exactly one configuration"
    )
    expect: Annotated[str | None, NOT_IDENTITY] = Field(
        None,
        description="content digest that the cache must have, or a file that describes the cache: "
        "cache.json of another run, or the output of `distinit cache info --json`. A cache with "
        "another teacher, preprocessing, class order, corpus, sampling or format is refused, with "
        "every field that differs. None: any cache",
    )
    student: StudentConfig = Field(default_factory=StudentConfig, description="the network")
    targets: tuple[TargetConfig, ...] = Field(
        (TargetConfig(),), min_length=1, description="one entry per teacher"
    )
    combine: Literal["heads", "mean"] = Field(
        "heads",
        description="heads: one head per teacher, and the losses are summed. mean: one head learns "
        "the mean of the teachers' targets, weighted by targets.weight; the teachers "
        "must share one label space. With average: logits the logits are averaged "
        "before the softmax, with average: probabilities after it",
        json_schema_extra={"source": "paper: heads"},
    )
    combine_filters: Literal["any", "all", "per_teacher"] = Field(
        "per_teacher",
        description="any: a clip is kept if one of its targets passes its filter; all: if all do; "
        "per_teacher: decided for each teacher. With combine: mean, per_teacher leaves out of the "
        "mean the targets that do not pass",
    )
    skip_filtered: bool = Field(
        False,
        description="do not load clips that the filter drops; otherwise they are loaded and have "
        "weight 0",
        json_schema_extra={"source": "paper: false"},
    )
    clip: ClipConfig = Field(
        default_factory=ClipConfig, description="clip length, crop and normalisation"
    )
    optimizer: OptimizerConfig = Field(
        default_factory=OptimizerConfig, description="optimiser and its schedule"
    )
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig, description="devices and batches")

    @model_validator(mode="before")
    @classmethod
    def _pixels_of_flow(cls, values: Any) -> Any:
        return with_flow_pixels(values)

    @model_validator(mode="before")
    @classmethod
    def _batch_of_epoch(cls, values: Any) -> Any:
        return with_fitting_batch(values)

    @model_validator(mode="after")
    def _one_loss_for_one_head(self) -> DistillConfig:
        if self.combine == "mean":
            kinds = {
                (_loss_of_logits(target), target.average, target.temperature)
                for target in self.targets
            }
            if len(kinds) > 1:
                raise ValueError(
                    "combine mean: all targets must have one loss, average and temperature"
                )
            if any(target.weight == 0 for target in self.targets):
                raise ValueError(
                    "combine mean: a target of weight 0 is not part of the mean; remove it"
                )
        return self


def _loss_of_logits(target: TargetConfig) -> Loss:
    return "cross_entropy" if target.loss == "auto" else target.loss
