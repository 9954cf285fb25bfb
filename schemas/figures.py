"""Configuration and result of `distinit figures`: run directories -> PNG and PDF files."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from distinit.schemas.base import Record, Seed
from distinit.schemas.compute import Device
from distinit.schemas.features import LabelledInput
from distinit.schemas.finetune import DatasetConfig, EvaluationConfig
from distinit.schemas.training import StudentConfig
from distinit.schemas.wording import one_line

__all__ = [
    "ConfusedConfig",
    "EmbeddingConfig",
    "FigureResult",
    "FiltersConfig",
    "GainConfig",
    "NamedRun",
    "ThresholdConfig",
    "ThresholdRun",
]

_MAX_RUNS = 50
_STUDENT = (
    "network of scratch and inflated; None: that of the first run. It must name the plugin that "
    "runs have as their network, if any"
)


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

    student: StudentConfig | None = Field(None, description=_STUDENT)
    filters: int = Field(
        32,
        ge=1,
        le=256,
        description="largest number of filters to show, those of highest energy",
        json_schema_extra={"unit": "filters"},
    )
    seed: Seed = Field(
        0, description="seed of the weights of scratch", json_schema_extra={"unit": "-"}
    )


class EmbeddingConfig(_RunsConfig):
    """Configuration of `distinit figures embedding` (Fig. 5 of the paper).

    A run is a folder of `distinit features`; or, with ``dataset``, also a run directory or an
    untrained network as for `distinit figures filters`.
    """

    dataset: DatasetConfig | None = Field(
        None, description="labelled videos, for runs whose features are not exported yet"
    )
    frames: str | None = Field(None, description="frame store of the dataset; None: OUT/frames")
    flow: str | None = Field(
        None, description="flow store of the dataset, for students of flow; None: OUT/flow"
    )
    student: StudentConfig | None = Field(None, description=_STUDENT)
    evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig,
        description="the clips of a video, whose features are averaged",
    )
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N")
    marked: tuple[str, ...] = Field(
        (), max_length=12, description="classes to colour; none: up to 12, evenly spaced"
    )
    seed: Seed = Field(
        0,
        description="seed of t-SNE, and of the weights of scratch",
        json_schema_extra={"unit": "-"},
    )

    def videos(self) -> LabelledInput | None:
        """What `distinit features` reads; None without a dataset."""
        if self.dataset is None:
            return None
        names = {"dataset", "frames", "flow", "student", "evaluation", "device", "seed"}
        return LabelledInput.model_validate(self.model_dump(include=names))


class ThresholdRun(Record):
    """One point of the threshold figure."""

    distilled: str = Field(min_length=1, description="distill run, which has the threshold")
    finetuned: str = Field(min_length=1, description="finetune run that began with it")


class ThresholdConfig(Record):
    """Configuration of `distinit figures threshold` (Fig. 6 of the paper)."""

    cache: str = Field(description="target cache that all runs were distilled from")
    teacher: str | None = Field(None, description="teacher id in the cache; None: its only one")
    runs: tuple[ThresholdRun, ...] = Field(
        min_length=1, max_length=_MAX_RUNS, description="one entry per point"
    )
    out: str = Field(description="folder for the PNG and the PDF")


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
    pairs: int = Field(
        20,
        ge=1,
        le=100,
        description="number of pairs of classes to show",
        json_schema_extra={"unit": "pairs"},
    )


class FigureResult(Record):
    """The files of one figure."""

    figure: str = Field(description="filters, embedding, threshold, gain or confused")
    files: tuple[str, ...] = Field(description="paths of the PNG and PDF files")

    def summary(self) -> str:
        """One line per file."""
        return "\n".join(one_line(path) for path in self.files)
