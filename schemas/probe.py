"""Configuration and result of `distinit probe`: what frozen features of inits are worth."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from distinit.schemas.base import Record
from distinit.schemas.features import LabelledInput
from distinit.schemas.finetune import check_init
from distinit.schemas.wording import counted, first_names, one_line

__all__ = [
    "GridPoint",
    "KnnScore",
    "LinearConfig",
    "LowShotScore",
    "Measures",
    "ProbeConfig",
    "ProbeResult",
    "ProbeRow",
    "Score",
]


_MAX_NAME = 28  # characters in a table


class LinearConfig(Record):
    """Training of linear classifiers on standardised features (SGD with a cosine schedule)."""

    learning_rates: tuple[float, ...] = Field(
        (0.001, 0.003, 0.01, 0.03, 0.1),
        min_length=1,
        description="learning rates of the grid",
        json_schema_extra={"unit": "none"},
    )
    weight_decays: tuple[float, ...] = Field(
        (0.0, 1e-3, 1e-2, 1e-1),
        min_length=1,
        description="weight decays of the grid; biases are not decayed",
        json_schema_extra={"unit": "none"},
    )
    steps: int = Field(
        1000, ge=1, description="optimiser steps", json_schema_extra={"unit": "steps"}
    )
    batch_size: int = Field(
        256,
        ge=1,
        description="videos per step, or all if there are fewer",
        json_schema_extra={"unit": "videos"},
    )
    momentum: float = Field(
        0.9, ge=0, lt=1, description="momentum of SGD", json_schema_extra={"unit": "none"}
    )

    @field_validator("learning_rates")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < value < math.inf for value in values):
            raise ValueError("learning rates must be above 0")
        return values

    @field_validator("weight_decays")
    @classmethod
    def _not_negative(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= value < math.inf for value in values):
            raise ValueError("weight decays must not be negative")
        return values

    @property
    def grid(self) -> list[tuple[float, float]]:
        """All pairs (learning rate, weight decay)."""
        return [(rate, decay) for rate in self.learning_rates for decay in self.weight_decays]


class ProbeConfig(LabelledInput):
    """Configuration of `distinit probe`."""

    inits: tuple[str, ...] = Field(
        (), description="inits to compare, as for `distinit finetune`; random init is always there"
    )
    cache: str | None = Field(
        None, description="target cache of the labelled videos, for rows of the teachers themselves"
    )
    teachers: tuple[str, ...] = Field(
        (), description="ids of teachers in `cache`; none: all of them"
    )
    out: str = Field(description="folder of the results; features are kept in it and used again")
    neighbours: tuple[int, ...] = Field(
        (20, 200), min_length=1, description="k of kNN", json_schema_extra={"unit": "videos"}
    )
    temperatures: tuple[float, ...] = Field(
        (0.07, 0.1),
        min_length=1,
        description="T of kNN: a vote has the weight exp(similarity / T)",
        json_schema_extra={"unit": "none"},
    )
    linear: LinearConfig = Field(default_factory=LinearConfig, description="linear classifiers")
    shots: tuple[int, ...] = Field(
        (1, 5, 10),
        description="training videos per class; all of them are always measured too",
        json_schema_extra={"unit": "videos"},
    )
    draws: int = Field(
        3,
        ge=1,
        description="random draws of the training videos per class",
        json_schema_extra={"unit": "draws"},
    )

    @field_validator("inits")
    @classmethod
    def _known_inits(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(check_init(value) for value in values))

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.teachers and self.cache is None:
            raise ValueError("--teacher needs the target cache of the labelled videos (--cache)")
        if any(k < 1 for k in self.neighbours) or any(n < 1 for n in self.shots):
            raise ValueError("neighbours and shots must be at least 1")
        if not all(0 < value < math.inf for value in self.temperatures):
            raise ValueError("temperatures must be above 0")
        return self


class Score(Record):
    """An accuracy over the test videos, in percent."""

    top1: float = Field(ge=0, le=100, description="percent")
    interval: tuple[float, float] = Field(
        description="95 % interval over the test videos (Wilson), percent"
    )

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.top1:.1f} [{low:.0f}-{high:.0f}]"


class KnnScore(Score):
    """Accuracy of a vote of the nearest training videos."""

    k: int = Field(description="as configured")
    used_k: int = Field(description="k, or the number of training videos if that is smaller")
    temperature: float = Field(description="T: a vote has the weight exp(similarity / T)")


class GridPoint(Record):
    """One linear classifier of the grid, trained without the held-out videos."""

    learning_rate: float = Field(description="at the start of the cosine schedule")
    weight_decay: float = Field(description="of the weights; biases are not decayed")
    held_out_top1: float | None = Field(description="percent; None: no video is held out")
    held_out_loss_nats: float | None = Field(
        description="mean cross entropy of the held-out videos; None: no video is held out"
    )
    test_top1: float = Field(description="percent; plays no part in the choice")


class LowShotScore(Record):
    """Accuracy of linear classifiers that were trained on few videos per class."""

    shots: int | None = Field(description="training videos per class; None: all")
    top1_mean: float = Field(description="over the draws, percent")
    top1_sd: float | None = Field(description="standard deviation (n - 1); None: one draw")
    top1: tuple[float, ...] = Field(description="of each draw, percent")

    def __str__(self) -> str:
        sd = "" if self.top1_sd is None else f" ±{self.top1_sd:.1f}"
        return f"{self.top1_mean:.1f}{sd}"


class Measures(Record):
    """Everything that is measured on one set of features."""

    knn: tuple[KnnScore, ...] = Field(description="one score per k and temperature")
    retrieval: dict[str, float] = Field(
        description="k -> test videos that share their class with at least one of their k nearest "
        "training videos, percent"
    )
    linear: Score = Field(description="linear classifier of all training videos")
    learning_rate: float = Field(description="chosen on held-out training videos")
    weight_decay: float = Field(description="chosen on held-out training videos")
    low_shot: tuple[LowShotScore, ...] = Field(
        description="one score per number of videos per class; the last one is of all videos"
    )
    grid: tuple[GridPoint, ...] = Field(
        description="one classifier per pair of learning rate and weight decay"
    )

    def cells(self) -> list[str]:
        """The cells of a table; see ``ProbeResult.table``."""
        few = [str(score) for score in self.low_shot if score.shots is not None]
        retrieved = [f"{percent:.1f}" for percent in self.retrieval.values()]
        return [str(self.knn[0]), *retrieved, *few, str(self.linear)]


class ProbeRow(Record):
    """One init, or one teacher."""

    name: str = Field(description="of the init as it was given, or of the teacher")
    kind: Literal["random", "inflated", "init", "teacher"] = Field(
        description="random weights, inflated image network, other init, or teacher"
    )
    features: str = Field("", description="what the features are")
    feature_dim: int = Field(0, description="length of a feature")
    sha256: str = Field("", description="of the weights, or the fingerprint of the teacher")
    absent_videos: int = Field(
        0, description="videos without features of this row; for testing they count as wrong"
    )
    missing: str = Field("", description="why there are no measures")
    measures: Measures | None = Field(None, description="None: see `missing`")

    @property
    def short_name(self) -> str:
        """The name on one line. Long inits lose their start, other long names their end."""
        name = one_line(self.name)
        if len(name) <= _MAX_NAME:
            return name
        kept = _MAX_NAME - 3
        return f"...{name[-kept:]}" if self.kind == "init" else f"{name[:kept]}..."


class ProbeResult(Record):
    """``probe.json``: all rows, in the order of the tables."""

    dataset: str = Field(description="kind of the split lists")
    dataset_digest: str = Field(description="sha256 over classes, labels, subsets and video bytes")
    protocol: str = Field(description="clips of a video, whose features were averaged")
    classes: int = Field(description="number of classes")
    train_videos: int = Field(description="that could be decoded")
    test_videos: int = Field(description="including those that could not be decoded")
    undecodable: tuple[str, ...] = Field(description="paths; those for testing count as wrong")
    chance: float = Field(description="100 / classes, percent")
    held_out_videos: int = Field(description="training videos that settings are chosen on")
    short_classes: dict[str, tuple[str, ...]] = Field(
        description="shots -> classes that have fewer training videos: all of theirs are used"
    )
    rows: tuple[ProbeRow, ...] = Field(description="inits, then teachers")
    files: dict[str, str] = Field(description="table, page and picture -> path")

    def notes(self) -> list[str]:
        """What a reader of the table has to know."""
        lines = [
            f"{self.classes} classes, {counted(self.train_videos, 'training video')}, "
            f"{counted(self.test_videos, 'test video')}, {self.protocol}; top-1 in percent, "
            f"chance {self.chance:.1f}; in brackets the 95 % interval over test videos, ± the "
            "standard deviation over draws"
        ]
        if self.undecodable:
            lines.append(f"could not be decoded: {first_names(self.undecodable)}")
        return [*map(one_line, lines), *self._row_notes(), *self._short_notes()]

    def _short_notes(self) -> list[str]:
        return [
            one_line(
                f"{counted(len(names), 'class', 'classes')} with fewer than "
                f"{shots} training videos, all of which are used: {first_names(names)}"
            )
            for shots, names in self.short_classes.items()
            if names
        ]

    def _row_notes(self) -> list[str]:
        lines = []
        capped = {
            (score.k, score.used_k)
            for row in self.rows
            if row.measures is not None
            for score in row.measures.knn
            if score.used_k < score.k
        }
        lines += [f"kNN: k {k} is capped at the {used} training videos" for k, used in capped]
        for row in self.rows:
            if row.missing:
                lines.append(f"{row.name}: {row.missing}")
            if row.absent_videos:
                lines.append(
                    f"{row.name}: no features of {counted(row.absent_videos, 'video')}; for "
                    "testing they count as wrong"
                )
        return [one_line(line) for line in lines]

    def summary(self) -> str:
        """The notes, and a table with one line per row."""
        rows = self.table()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if number == 0 else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        paths = [one_line(path) for path in self.files.values()]
        return "\n".join([*lines, "", *self.notes(), "", *paths])

    def table(self, *, short_names: bool = True) -> list[list[str]]:
        """Headings, then the cells of each row. kNN has the first k and T of the configuration."""
        names = [row.short_name if short_names else row.name for row in self.rows]
        measured = [row.measures for row in self.rows if row.measures is not None]
        if not measured:
            return [["features"], *([name] for name in names)]
        knn = measured[0].knn[0]
        few = [score for score in measured[0].low_shot if score.shots is not None]
        head = ["features", f"kNN {knn.k}", *(f"R@{k}" for k in measured[0].retrieval)]
        head += [f"{score.shots} per class" for score in few] + ["linear, all"]
        empty = ["-"] * (len(head) - 1)
        return [
            head,
            *(
                [name, *(empty if row.measures is None else row.measures.cells())]
                for name, row in zip(names, self.rows, strict=True)
            ),
        ]
