"""Configuration and result of `distinit figures`: run directories -> PNG and PDF files."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from distinit.schemas.base import Record
from distinit.schemas.wording import one_line

__all__ = [
    "ConfusedConfig",
    "FigureResult",
    "FiltersConfig",
    "GainConfig",
    "NamedRun",
]

_MAX_RUNS = 50


class NamedRun(Record):
    """One run of a figure."""

    label: str = Field(min_length=1, max_length=1_000, description="its name in the figure")
    run: str = Field(min_length=1, description="run directory")


class _RunsConfig(Record):
    """What all figures need: runs with distinct labels, and a folder for the files."""

    runs: tuple[NamedRun, ...] = Field(
        min_length=1, max_length=_MAX_RUNS, description="runs to show, in this order"
    )
    out: str = Field(description="folder for the PNG and the PDF")

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = [run.label for run in self.runs]
        if len(set(labels)) < len(labels):
            raise ValueError("two runs have the same label")
        return self


class FiltersConfig(_RunsConfig):
    """Configuration of `distinit figures filters` (Fig. 3 and 4 of the paper).

    A run is a distill or finetune run directory, or an untrained network: ``scratch``,
    ``inflated`` or ``inflated:FILE``.
    """

    student: str | None = Field(
        None,
        description="network of scratch and inflated; also the plugin that the runs use, if any",
    )
    in_channels: int = Field(
        3, ge=2, le=3, description="input channels of scratch and inflated: 3 RGB, 2 optical flow"
    )
    filters: int = Field(
        32, ge=1, le=256, description="largest number of filters to show, those of highest energy"
    )
    seed: int = Field(0, ge=0, description="seed of the weights of scratch")


class GainConfig(_RunsConfig):
    """Configuration of `distinit figures gain` (Fig. 7 of the paper): the base run comes first."""

    runs: tuple[NamedRun, ...] = Field(
        min_length=2, max_length=2, description="two finetune runs: the gain of the second"
    )


class ConfusedConfig(_RunsConfig):
    """Configuration of `distinit figures confused`."""

    runs: tuple[NamedRun, ...] = Field(
        min_length=1,
        max_length=2,
        description="one finetune run, or two: what changed from the first to the second",
    )
    pairs: int = Field(20, ge=1, le=100, description="number of pairs of classes to show")


class FigureResult(Record):
    """The files of one figure."""

    figure: str = Field(description="filters, embedding, threshold, gain or confused")
    files: tuple[str, ...] = Field(description="paths of the PNG and PDF files")

    def summary(self) -> str:
        """One line per file."""
        return "\n".join(one_line(path) for path in self.files)
