"""What was measured of a teacher's outputs while they were written."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from distinit.schemas.base import Name, Record, without_none
from distinit.schemas.wording import one_line

__all__ = ["FeatureFidelityReport", "FidelityReport", "OutputReport"]

_UNINFORMATIVE = 0.99
"""Warn above this fraction of the highest possible entropy, or of frames with one top class."""
_LARGE_COSINE_ERROR = 0.01  # 8 degrees; int8 is below 1e-4 (decision 54)
_WARN_FRACTION = 0.01  # of frames with tied logits
_MANY_FRAMES = 100


class FidelityReport(Record):
    """How much the stored targets differ from the fp32 logits, measured while writing."""

    frames: int = Field(ge=0, description="frames measured")
    mean_kl_nats: float = Field(ge=0, description="mean KL(fp32 || stored), nats")
    max_kl_nats: float = Field(ge=0, description="largest KL(fp32 || stored), nats")
    mean_entropy_error_nats: float = Field(ge=0, description="mean |entropy difference|, nats")
    top1_agreement: float = Field(
        ge=0, le=1, description="fraction of frames with the same top class"
    )
    filter_flips: float = Field(
        ge=0,
        le=1,
        description="fraction of frames that an entropy filter at a quartile would keep by one of "
        "the two entropies (of the stored target, of the fp32 logits) and drop by the other",
    )
    measured_against: Name | None = Field(
        None,
        description="encoding of the source that a derived cache was compared with, in place of "
        "the fp32 logits. None: compared with these, and the key is left out",
    )

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(dump(self), "measured_against")

    def __str__(self) -> str:
        source = self.measured_against
        targets = f"the targets of its source ({one_line(source)})" if source else "the targets"
        return (
            f"changes {targets} by {self.mean_kl_nats:.2g} nats on average (KL divergence; at "
            f"most {self.max_kl_nats:.2g}) and their entropy by "
            f"{self.mean_entropy_error_nats:.2g} nats; "
            f"same top class for {_percent(self.top1_agreement)} of the frames, same decision of "
            f"an entropy filter for {_percent(1 - self.filter_flips)}"
        )

    def brief(self) -> str:
        """The most important numbers, on one line."""
        source = " to its source" if self.measured_against else ""
        return (
            f"KL {self.mean_kl_nats:.2g} nats{source} (at most {self.max_kl_nats:.2g}), "
            f"same top class for {_percent(self.top1_agreement)}"
        )


class FeatureFidelityReport(Record):
    """How much the stored features differ from those computed in fp32, measured while writing."""

    frames: int = Field(ge=0, description="frames measured")
    mean_cosine_error: float = Field(
        ge=0, le=2, description="mean of 1 - cosine of the fp32 and the stored features"
    )
    max_cosine_error: float = Field(ge=0, le=2, description="largest 1 - cosine")
    mean_relative_error: float = Field(
        ge=0, description="mean of |stored - fp32| / |fp32|, Euclidean norms"
    )
    max_relative_error: float = Field(ge=0, description="largest |stored - fp32| / |fp32|")
    measured_against: Name | None = Field(
        None,
        description="encoding of the source that a derived cache was compared with, in place of "
        "the fp32 features. None: compared with these, and the key is left out",
    )

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(dump(self), "measured_against")

    def __str__(self) -> str:
        source = self.measured_against
        features = f"the features of its source ({one_line(source)})" if source else "the features"
        return (
            f"changes {features} by {self.mean_relative_error:.2g} of their norm on average (at "
            f"most {self.max_relative_error:.2g}) and their direction by a cosine error of "
            f"{self.mean_cosine_error:.2g} (at most {self.max_cosine_error:.2g})"
        )

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the encoding, one phrase per reason."""
        if self.mean_cosine_error <= _LARGE_COSINE_ERROR:
            return []
        return [
            f"its encoding loses the features: a cosine error of {self.mean_cosine_error:.2g} on "
            "average; use another encoding, such as int8 for very small values"
        ]

    def brief(self) -> str:
        """The most important numbers, on one line."""
        source = " to its source" if self.measured_against else ""
        return (
            f"cosine error {self.mean_cosine_error:.2g}{source} (at most "
            f"{self.max_cosine_error:.2g}), relative error {self.mean_relative_error:.2g}"
        )


def _percent(share: float) -> str:
    """Only all frames are 100 %."""
    return "100 %" if share == 1 else f"{min(100 * share, 99.99):.2f} %"


class OutputReport(Record):
    """Statistics that show whether a teacher's outputs differ between frames of the corpus."""

    frames: int = Field(ge=1, description="rows of the cache")
    mean_entropy_nats: float = Field(ge=0, description="mean entropy over these frames, nats")
    highest_possible_nats: float = Field(ge=0, description="ln(classes)")
    tied_fraction: float = Field(
        ge=0, le=1, description="fraction of frames whose two largest logits are equal"
    )
    flat_fraction: float = Field(
        ge=0, le=1, description="fraction of frames whose logits are all equal"
    )
    top_class: int = Field(ge=0, description="the class that is most often the most probable one")
    top_class_name: str = Field("", description="name of that class; empty: unknown")
    top_class_fraction: float = Field(
        ge=0, le=1, description="fraction of frames with that top class, or a lower bound of it"
    )

    @property
    def warnings(self) -> list[str]:
        """Reasons why the targets may be uninformative, one phrase per reason."""
        found = []
        if self.mean_entropy_nats >= _UNINFORMATIVE * self.highest_possible_nats:
            found.append(
                f"mean entropy {self.mean_entropy_nats:.3f} of at most "
                f"{self.highest_possible_nats:.3f} nats: its targets are almost uniform"
            )
        if self.flat_fraction >= _WARN_FRACTION:
            found.append(f"all logits are equal for {self.flat_fraction:.1%} of the frames")
        elif self.tied_fraction >= _WARN_FRACTION:
            found.append(
                f"the two largest logits are equal for {self.tied_fraction:.1%} of the frames: "
                "the class with the lower number is taken"
            )
        if self.top_class_fraction >= _UNINFORMATIVE and self.frames >= _MANY_FRAMES:
            label = f" ({one_line(self.top_class_name)})" if self.top_class_name else ""
            found.append(
                f"class {self.top_class}{label} is the most probable one for "
                f"{self.top_class_fraction:.1%} of the frames"
            )
        return found
