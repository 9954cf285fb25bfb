"""The outcome of the demo's experiment."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record

__all__ = ["Gain"]


class Gain(Record):
    """Top-1 accuracy of an init against training from scratch, in percent of the test videos."""

    films_per_class: int = Field(description="training films per class")
    videos: int = Field(description="number of test videos")
    chance: float = Field(description="top-1 of guessing, percent")
    top1: dict[str, float] = Field(description="init -> top-1, percent")
    interval: dict[str, tuple[float, float]] = Field(
        description="init -> 95 % interval over test videos (Wilson), percent"
    )
    points: float = Field(description="top-1 of distinit minus that of scratch, points")
    points_interval: tuple[float, float] = Field(
        description="95 % interval of points over test videos (Newcombe), points"
    )
