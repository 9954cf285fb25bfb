"""Configuration of stage two: target cache + frame store -> student."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from distinit.schemas.base import NOT_IDENTITY, Record
from distinit.schemas.training import (
    ClipConfig,
    OptimizerConfig,
    RuntimeConfig,
    StudentConfig,
    with_flow_pixels,
)

__all__ = ["DistillConfig", "FilterConfig", "TargetConfig"]


class FilterConfig(Record):
    """Which clips count: those whose target entropy is low enough (paper section 3)."""

    max_entropy_nats: float | None = Field(None, ge=0, description="threshold, nats")
    keep_fraction: float | None = Field(
        None, gt=0, le=1, description="threshold as the quantile of the cache's frame entropies"
    )

    @model_validator(mode="after")
    def _one_threshold(self) -> FilterConfig:
        if self.max_entropy_nats is not None and self.keep_fraction is not None:
            raise ValueError("give max_entropy_nats or keep_fraction, not both")
        return self


class TargetConfig(Record):
    """How one teacher's stored frames become the target of a clip (paper sections 3, 4.3)."""

    teacher: str | None = Field(None, description="teacher id in the cache; None: its only teacher")
    flipped_teacher: str | None = Field(
        None,
        description="id of the same teacher over mirrored frames (extracted with flip: true): what "
        "it said is the target of flipped clips. None: a flipped clip learns what the teacher "
        "said of the frame as it is, as in the paper",
    )
    pick: Literal["center", "random", "uniform", "k_random", "all"] = Field(
        "random", description="frames of the clip that give the target (paper: one random is best)"
    )
    k: int = Field(1, ge=1, description="frames for pick uniform and k_random")
    average: Literal["logits", "probabilities"] = Field(
        "logits", description="average before or after softmax (paper: logits)"
    )
    temperature: float = Field(1.0, gt=0, description="softmax temperature of both (paper: 1)")
    loss: Literal["cross_entropy", "kl", "mse", "cosine"] = Field(
        "cross_entropy",
        description="paper: cross_entropy; mse (half the squared distance of the logits) wants a "
        "tenth of the learning rate, which you set yourself",
    )
    weight: float = Field(1.0, ge=0, description="factor of this teacher's loss in the sum")
    filter: FilterConfig = Field(default_factory=FilterConfig, description="confidence filter")

    @model_validator(mode="after")
    def _logit_losses(self) -> TargetConfig:
        if self.loss in {"mse", "cosine"}:
            if self.average == "probabilities":
                raise ValueError(f"{self.loss} compares logits: average must be logits")
            if self.temperature != 1:
                raise ValueError(f"{self.loss} compares logits: temperature must be 1")
        return self


class DistillConfig(Record):
    """One YAML file of this shape reproduces a student."""

    cache: Annotated[str, NOT_IDENTITY] = Field(description="folder of the target cache")
    frames: Annotated[str, NOT_IDENTITY] = Field(description="folder of the frame store")
    out: Annotated[str, NOT_IDENTITY] = Field(
        description="run directory; belongs to exactly one config"
    )
    student: StudentConfig = Field(default_factory=StudentConfig, description="the network")
    targets: tuple[TargetConfig, ...] = Field(
        (TargetConfig(),), min_length=1, description="one entry per teacher"
    )
    combine: Literal["heads", "mean"] = Field(
        "heads",
        description="heads: one head a teacher, losses are summed (paper). mean: one head learns "
        "the mean of the teachers' targets, weighted by targets.weight, which needs one label "
        "space: average logits means logits and then takes the softmax, probabilities the means "
        "of the distributions; each after its own pick",
    )
    combine_filters: Literal["any", "all", "per_teacher"] = Field(
        "per_teacher",
        description="a clip counts if any / all teachers are confident, or for each; with combine "
        "mean, per_teacher leaves the teachers that are not confident out of the mean",
    )
    skip_filtered: bool = Field(
        False,
        description="never decode clips that the filter drops (else zero weight, as the paper)",
    )
    clip: ClipConfig = Field(default_factory=ClipConfig, description="clip geometry and pixels")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="SGD, schedule")
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig, description="devices, batches")

    @model_validator(mode="before")
    @classmethod
    def _pixels_of_flow(cls, values: Any) -> Any:
        return with_flow_pixels(values)

    @model_validator(mode="after")
    def _one_loss_for_one_head(self) -> DistillConfig:
        if self.combine == "mean":
            kinds = {(target.loss, target.average, target.temperature) for target in self.targets}
            if len(kinds) > 1:
                raise ValueError("combine mean: all targets need one loss, average and temperature")
            if any(target.weight == 0 for target in self.targets):
                raise ValueError("combine mean: a target of weight 0 has no part; remove it")
        return self
