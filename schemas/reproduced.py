"""The results of `distinit reproduce`: each row of the paper's tables beside ours."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.reproduce import PaperResult

__all__ = ["Measured", "OurResult", "ReproducedRow", "ReproducedTable"]


class Measured(Record):
    """A metric over the seeds of a row."""

    mean: float = Field(description="mean over the seeds, percent")
    sd: float | None = Field(
        None, description="standard deviation over the seeds (n - 1), percent; None: one seed"
    )


class OurResult(Record):
    """The metrics of one row. A seed's value is the mean over its splits."""

    per_clip: Measured = Field(description="top-1 of single clips")
    top1: Measured = Field(description="top-1 of means per video")
    top5: Measured | None = Field(
        description="top-5 of means per video; None: with up to five classes it is always 100 %"
    )
    top1_interval: tuple[float, float] | None = Field(
        description="95 % interval over the test videos (Wilson), percent; None: several seeds"
    )
    chance: float = Field(description="top-1 of guessing, percent")
    seeds: tuple[int, ...] = Field(description="seeds of the finished runs")
    splits: tuple[int, ...] = Field(description="official splits of each seed")
    learning_rate: float | None = Field(
        None, description="the best finetune learning rate of a sweep, on the test videos"
    )
    sweep: dict[str, float] = Field(
        default_factory=dict, description="learning rate -> top-1 of each rate of the sweep"
    )


class ReproducedRow(Record):
    """A row: the paper's result, and ours or the reason why there is none."""

    label: str = Field(description="name of the row")
    paper_data: str = Field(description="dataset and splits of the paper")
    paper: PaperResult = Field(description="what the paper prints")
    our_data: str = Field(description="dataset and splits of our runs; empty without them")
    ours: OurResult | None = Field(description="None: see `note`")
    note: str = Field(description="why there is no result, or what is special about it")
    shown: str | None = Field(None, description="name of the run that figures show")


class ReproducedTable(Record):
    """A table or figure of the paper."""

    name: str = Field(description="table1 .. table6, fig3 .. fig7")
    title: str = Field(description="what it compares")
    rows: tuple[ReproducedRow, ...] = Field(description="rows, in the paper's order")
    figure: str | None = Field(None, description="path of the figure (PNG), if it was drawn")
    figure_note: str = Field("", description="why a figure was not drawn")
