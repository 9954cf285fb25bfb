"""How well the confidence of a teacher agrees with labels: a part of ``audit.json``."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record

__all__ = ["AccuracyBin", "LabelAudit"]


class AccuracyBin(Record):
    """Labelled frames whose confidence or entropy lies between two values."""

    low: float = Field(description="lower end of the bin")
    high: float = Field(description="upper end of the bin, included")
    frames: int = Field(ge=1, description="labelled frames in the bin; empty bins are left out")
    accuracy: float = Field(
        ge=0, le=1, description="share of them whose most probable class is the label"
    )
    confidence: float = Field(ge=0, le=1, description="mean probability of the most probable class")


class LabelAudit(Record):
    """The outputs of one teacher against labels: each frame has the label of its video."""

    videos: int = Field(ge=0, description="labelled videos with frames")
    frames: int = Field(ge=1, description="their frames")
    unknown_labels: tuple[str, ...] = Field(
        (),
        description="labels that are not in the label space, some of them; their videos are "
        "left out",
    )
    accuracy: float = Field(ge=0, le=1, description="share of the frames that are classified right")
    ece: float = Field(
        ge=0,
        le=1,
        description="expected calibration error of the most probable class, 15 bins (torchmetrics)",
    )
    ece_frames: int = Field(ge=1, description="frames that the error was computed on")
    temperature: float = Field(
        gt=0,
        description="softmax temperature with the highest likelihood of the labels",
    )
    temperature_frames: int = Field(ge=1, description="frames that it was fitted on")
    nll_nats: float = Field(ge=0, description="mean negative log likelihood, at temperature 1")
    fitted_nll_nats: float = Field(ge=0, description="the same at the fitted temperature")
    by_confidence: tuple[AccuracyBin, ...] = Field(description="the reliability diagram")
    by_entropy: tuple[AccuracyBin, ...] = Field(description="accuracy by entropy, nats")
