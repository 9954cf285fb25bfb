"""What the confidence filters of a distillation keep: thresholds, and shares of the clips."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from distinit.schemas.base import Record, Sha256
from distinit.schemas.wording import one_line

__all__ = ["TargetShare", "ThresholdRecord", "ThresholdsRecord"]

_FEW = 0.5  # share of clips with a target below which a run warns


class TargetShare(Record):
    """The share of a head's training clips that had a target."""

    with_target: float = Field(ge=0, le=1, description="share of clips with a stored target")
    kept: float = Field(
        ge=0, le=1, description="share of all clips that have a target and pass the filter"
    )

    def lines(self, head: str) -> list[str]:
        """One line of text, and a warning if most clips had no target."""
        kept = "" if self.kept == self.with_target else f", {self.kept:.1%} kept by the filter"
        lines = [f"{one_line(head)}: {self.with_target:.1%} of the clips had a target{kept}"]
        if self.with_target < _FEW:
            lines.append(
                f"warning: most clips had no target for head {one_line(head)}: extract with a "
                "smaller stride, or complete the cache"
            )
        return lines


class ThresholdRecord(Record):
    """The threshold of one teacher's filter, and the share of the clips that it keeps."""

    threshold_nats: float = Field(ge=0, description="largest entropy of a target that is kept")
    kept: float = Field(
        ge=0, le=1, description="share of the clips with a target whose entropy is at most that"
    )
    tied: float = Field(ge=0, le=1, description="share whose entropy equals the threshold")
    sampled_clips: int | None = Field(
        None,
        ge=1,
        description="clips that the shares were measured on; None: computed from all clips",
    )

    @property
    def standard_error(self) -> float:
        """Of ``kept``, as a share; 0 if it is exact."""
        if self.sampled_clips is None:
            return 0.0
        return math.sqrt(self.kept * (1 - self.kept) / self.sampled_clips)

    def line(self) -> str:
        """For the terminal: the threshold and what it keeps."""
        exact = f", ± {self.standard_error:.1%}" if self.sampled_clips else ""
        return (
            f"entropy at most {self.threshold_nats:.3f} nats, which keeps {self.kept:.1%} of the "
            f"clips{exact}"
        )


class ThresholdsRecord(Record):
    """``thresholds.json`` of a distill run: computed once, for every worker and resumption."""

    format: Literal["distinit-thresholds"] = Field(
        "distinit-thresholds", description="name of the record's format"
    )
    format_version: int = Field(
        1, description="version of the record's format; a reader refuses others"
    )
    settings_digest: Sha256 = Field(
        description="digest of the settings that the thresholds depend on: targets and clip"
    )
    teachers: dict[str, ThresholdRecord] = Field(
        description="by teacher id; only teachers with a filter"
    )
