"""What an audit says about a teacher that stores features."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record

__all__ = ["FeatureAudit", "NormHistogram"]


class NormHistogram(Record):
    """Vectors by their Euclidean norm."""

    edges: tuple[float, ...] = Field(description="edges of the bins, ascending, in feature units")
    vectors: tuple[int, ...] = Field(description="vectors per bin")


class FeatureAudit(Record):
    """Features of one teacher: each row is a vector, or each cell of a grid.

    All rows of the cache count, also those of gone videos: training uses their statistics too.
    """

    vectors: int = Field(ge=1, description="vectors whose norms were read")
    channels: int = Field(ge=1, description="values per vector")
    norm_min: float = Field(ge=0, description="smallest Euclidean norm, in feature units")
    norm_median: float = Field(
        ge=0, description="median norm, in feature units; a bin of .05 % holds it"
    )
    norm_max: float = Field(ge=0, description="largest norm, in feature units")
    norms: NormHistogram = Field(description="histogram of the norms")
    effective_rank: float | None = Field(
        None,
        description="exp of the entropy of the eigenvalue shares of the covariance, 1 to channels. "
        "None: the cache has no covariance",
        json_schema_extra={"source": "Roy and Vetterli 2007, of squared singular values here"},
    )
    participation_ratio: float | None = Field(
        None, description="1 / sum of the squared eigenvalue shares; None: no covariance"
    )
    spectrum: tuple[float, ...] = Field(
        (), description="share of each eigenvalue of the covariance, largest first; at most 512"
    )
    collapsed_dimensions: int | None = Field(
        None, description="channels below collapsed_std; None: the cache has no statistics"
    )
    collapsed_std: float | None = Field(
        None, description="1e-3 of the median standard deviation of the channels, feature units"
    )

    def brief(self) -> str:
        """The main numbers in one line."""
        norms = f"norm {self.norm_min:.4g} / {self.norm_median:.4g} / {self.norm_max:.4g}"
        text = f"{self.vectors:,} features of {self.channels} channels, {norms}"
        if self.effective_rank is not None:
            text += f", effective rank {self.effective_rank:.1f}"
        if self.collapsed_dimensions is not None:
            text += f", {self.collapsed_dimensions} collapsed"
        return text
