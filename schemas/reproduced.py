"""The results of `distinit reproduce`: each row of the paper's tables beside ours."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.reproduce import PaperResult

__all__ = ["Measured", "OurResult", "ReproducedRow", "ReproducedTable"]


class Measured(Record):
    """A mean over seeds, percent, and the standard deviation of the seeds (None of one seed)."""

    mean: float
    sd: float | None = None


class OurResult(Record):
    """The metrics of one row. A seed's value is the mean over its splits."""

    per_clip: Measured = Field(description="top-1 of single clips")
    top1: Measured = Field(description="top-1 of means per video")
    top5: Measured = Field(description="top-5 of means per video")
    top1_interval: tuple[float, float] | None = Field(
        description="95 % interval over the test videos (Wilson), percent; of one seed only"
    )
    chance: float = Field(description="top-1 of guessing, percent")
    seeds: tuple[int, ...]
    splits: tuple[int, ...]
    learning_rate: float | None = Field(
        None, description="the best finetune learning rate of a sweep, on the test videos"
    )
    sweep: dict[str, float] = Field(
        default_factory=dict, description="learning rate -> top-1 of each rate of the sweep"
    )


class ReproducedRow(Record):
    """A row: the paper's result, and ours or the reason why there is none."""

    label: str
    paper_data: str = Field(description="dataset and splits of the paper")
    paper: PaperResult
    our_data: str = Field(description="dataset and splits of our runs; empty without them")
    ours: OurResult | None
    note: str = Field(description="why there is no result, or what is special about it")
    shown: str | None = Field(None, description="name of the run that figures show")


class ReproducedTable(Record):
    """A table or figure of the paper."""

    name: str
    title: str
    rows: tuple[ReproducedRow, ...]
    figure: str | None = Field(None, description="path of the figure (PNG), if it was drawn")
    figure_note: str = Field("", description="why a figure was not drawn")
