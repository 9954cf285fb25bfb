"""Configuration of `distinit reproduce`: the tables of the paper, and the scale to run them at.

A cell is one row of a table in the paper's terms (network, init, targets, dataset). A scale says
what is used for these terms: which videos, teachers, networks and training settings.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from distinit.schemas.base import Record, Seed
from distinit.schemas.finetune import EvaluationConfig
from distinit.schemas.frames import FrameGeometry

__all__ = [
    "Absent",
    "Cell",
    "CorpusSource",
    "DatasetName",
    "DatasetSource",
    "ImageNetwork",
    "MakeDataConfig",
    "PaperResult",
    "Protocol",
    "Protocols",
    "ReproduceConfig",
    "ScaleConfig",
    "StudentRole",
    "TableConfig",
    "TeacherRole",
    "TeacherSource",
    "Variant",
]

TeacherRole = Literal["imagenet", "places"]
StudentRole = Literal["r3d_18", "r2plus1d_18"]
DatasetName = Literal["hmdb51", "ucf101"]
Protocol = Literal["standard", "dense"]
_NAME = r"^[a-z][a-z0-9_]{0,39}$"


class PaperResult(Record):
    """What the paper prints for a cell, percent; None where it prints nothing or is not known."""

    per_clip: float | None = Field(None, ge=0, le=100, description="top-1 of single clips")
    top1: float | None = Field(None, ge=0, le=100, description="top-1 of means per video")
    top5: float | None = Field(None, ge=0, le=100, description="top-5 of means per video")


class Variant(Record):
    """How the student of a DistInit cell is distilled (paper sections 3 and 4.3)."""

    teachers: tuple[TeacherRole, ...] = Field(
        ("imagenet",), min_length=1, description="image networks, one head each, losses summed"
    )
    pick: Literal["center", "random", "k_random"] = Field(
        "random", description="frames of the clip that make its target"
    )
    k: int = Field(1, ge=1, description="number of frames for pick k_random")
    loss: Literal["cross_entropy", "mse"] = Field(
        "cross_entropy", description="mse is trained with a tenth of the learning rate (paper)"
    )
    keep_percent: int = Field(
        100, ge=1, le=100, description="most confident targets to keep, percent (paper Fig. 6)"
    )


class Cell(Record):
    """One row of a table: a network, what it starts from, and the dataset it is finetuned on."""

    label: str = Field(min_length=1, max_length=100, description="name of the row")
    student: StudentRole = Field(description="the paper's network")
    init: Literal["scratch", "inflated", "distinit", "supervised"] = Field(
        description="what finetuning starts from; supervised: the labels of the corpus"
    )
    inflate: TeacherRole | None = Field(
        None, description="of init inflated: the dataset that the 2D network was trained on"
    )
    distill: Variant | None = Field(None, description="of init distinit: its targets and loss")
    input: Literal["rgb", "flow"] = Field("rgb", description="what the student reads")
    frames: int = Field(8, ge=1, description="frames per clip (paper: 8, and 32 in Table 6)")
    dataset: DatasetName = Field("hmdb51", description="labelled dataset of the paper")
    all_splits: bool = Field(False, description="mean over all official splits of the dataset")
    protocol: Protocol = Field("standard", description="evaluation: standard or dense clips")
    main: bool = Field(False, description="trained with the scale's main_seeds")
    paper: PaperResult = Field(default_factory=PaperResult, description="the paper's results")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.init == "distinit") != (self.distill is not None):
            raise ValueError("distill belongs to init distinit, which needs it")
        if (self.init == "inflated") != (self.inflate is not None):
            raise ValueError("inflate belongs to init inflated, which needs it")
        return self


class TableConfig(Record):
    """A table or figure of the paper, as the list of its runs."""

    name: str = Field(pattern=_NAME, description="table1 .. table6, fig3 .. fig7")
    title: str = Field(min_length=1, max_length=200, description="what it compares")
    figure: Literal["filters", "embedding", "threshold", "gain"] | None = Field(
        None, description="figure that is drawn of these runs; None: only a table"
    )
    cells: tuple[Cell, ...] = Field(min_length=1, description="rows, in the paper's order")

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        if len({cell.label for cell in self.cells}) < len(self.cells):
            raise ValueError("two rows have the same label")
        return self


class Absent(Record):
    """Something that a scale does not have. Rows that need it give this reason."""

    absent: str = Field(min_length=1, max_length=200, description="the reason")


class CorpusSource(Record):
    """The unlabelled videos. Paths are relative to the data folder."""

    title: str = Field(description="name of the corpus, for the tables")
    root: str = Field(description="folder of videos, searched recursively")
    listing: str | None = Field(
        None,
        description="CSV with path,label,split of the corpus, if it exists: its training videos "
        "are the corpus, missing files are listed and left out, and its labels are those of the "
        "supervised init",
    )
    frames_per_video: int | None = Field(
        None,
        ge=1,
        description="frames of a video, assumed for estimates of bytes before anything is decoded",
        json_schema_extra={"unit": "frames"},
    )


class DatasetSource(Record):
    """A labelled dataset. Paths are relative to the data folder."""

    title: str = Field(description="name of the dataset, for the tables")
    root: str = Field(description="folder of class folders, or of train/ and test/")
    splits: str | None = Field(
        None, description="folder of official split lists; None: train/ and test/ below root"
    )
    all_splits: tuple[int, ...] = Field(
        (1,), min_length=1, description="official splits", json_schema_extra={"unit": "-"}
    )


class TeacherSource(Record):
    """The image network that is used as one of the paper's teachers."""

    name: str = Field(description="as in `extract --teacher`")
    weights: str | None = Field(
        None, description="file below the data folder; None: the teacher needs no file"
    )
    title: str = Field(description="name for the tables")
    classes: int = Field(
        ge=1,
        description="width of its output, for estimates of bytes",
        json_schema_extra={"unit": "classes"},
    )


class ImageNetwork(Record):
    """The 2D network that a student is inflated from: a file, or a student that is distilled."""

    weights: str | None = Field(None, description="file below the data folder")
    student: str | None = Field(
        None, description="image network that is distilled with clips of one frame"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.weights is None) == (self.student is None):
            raise ValueError("name either weights or a student")
        return self


class Protocols(Record):
    """How the runs of a scale are evaluated."""

    standard: EvaluationConfig = Field(default_factory=EvaluationConfig, description="every run")
    dense: EvaluationConfig = Field(
        default_factory=lambda: EvaluationConfig(protocol="dense-s1"),
        description="cells with protocol dense, in addition",
    )


class ScaleConfig(Record):
    """What a scale runs for the cells. Settings are those of the stages' own configurations."""

    name: str = Field(pattern=_NAME, description="smoke, small, paper, or a name of your own")
    title: str = Field(description="how our rows are marked")
    comparable: bool = Field(
        False, description="whether our results may be compared with the paper's"
    )
    make_data: Literal["moving_digits"] | None = Field(
        None, description="data that the command makes itself; None: --data must have it"
    )
    corpus: CorpusSource = Field(description="unlabelled videos to distil from")
    datasets: dict[DatasetName, DatasetSource | Absent] = Field(description="labelled datasets")
    teachers: dict[TeacherRole, TeacherSource | Absent] = Field(description="image networks")
    inflation: dict[TeacherRole, ImageNetwork | Absent] = Field(
        description="2D networks to inflate from, by the dataset they were trained on"
    )
    students: dict[StudentRole, str | Absent] = Field(description="video networks")
    supervised: Absent | None = Field(
        None, description="why the supervised init is not possible; None: it is"
    )
    geometry: FrameGeometry = Field(default_factory=FrameGeometry, description="stored frames")
    flow_range: float = Field(
        20.0,
        gt=0,
        description="largest motion in the flow stores",
        json_schema_extra={"unit": "pixels per frame", "source": "decision 15"},
    )
    extract: dict[str, Any] = Field(
        default_factory=dict, description="settings of `distinit extract`"
    )
    distill: dict[str, Any] = Field(
        description="settings of `distinit distill`; in the file of a scale also the name of a "
        "YAML file next to it, as for the next three"
    )
    finetune: dict[str, Any] = Field(
        description="settings of `distinit finetune` for pretrained students"
    )
    scratch: dict[str, Any] = Field(
        description="settings of `distinit finetune` for training from scratch"
    )
    pretrain: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of `distinit finetune` on the labels of the corpus",
    )
    long_clips: Annotated[int, Field(ge=1)] | Absent = Field(
        1,
        description="parts into which the batches of clips of more than 8 frames are divided, to "
        "fit into memory; the global batch and learning rate stay the same",
        json_schema_extra={"unit": "parts"},
    )
    protocols: Protocols = Field(default_factory=Protocols, description="evaluation")
    splits: tuple[int, ...] = Field(
        (1,),
        min_length=1,
        description="official splits to run",
        json_schema_extra={"unit": "-"},
    )
    seeds: tuple[Seed, ...] = Field(
        (0,), min_length=1, description="seeds of every run", json_schema_extra={"unit": "-"}
    )
    main_seeds: tuple[Seed, ...] = Field(
        (),
        description="seeds of the main cells; empty: the same as the others",
        json_schema_extra={"unit": "-"},
    )
    sweep: tuple[float, ...] = Field(
        (),
        description="finetune learning rates that every cell is trained with, whatever its init; "
        "its row has the best. Empty: the rate of the settings",
        json_schema_extra={"unit": "none"},
    )

    @model_validator(mode="after")
    def _labels_for_supervision(self) -> Self:
        if self.supervised is None and self.corpus.listing is None:
            raise ValueError("supervised needs corpus.listing, or the reason why it is absent")
        return self


class MakeDataConfig(Record):
    """Data that a scale makes itself."""

    out: str = Field(description="the data folder")


class ReproduceConfig(Record):
    """Configuration of `distinit reproduce`."""

    table: str = Field(description="table1 .. table6, fig3 .. fig7, or all")
    scale: str = Field("smoke", description="smoke, small, paper, or a .yaml file of a scale")
    data: str | None = Field(
        None, description="folder with videos, lists and weights; None: OUT/data"
    )
    out: str = Field(description="folder of caches, stores, runs and results")
    splits: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        description="official splits to run; None: those of the scale",
        json_schema_extra={"unit": "-"},
    )
    seeds: tuple[Seed, ...] | None = Field(
        None,
        min_length=1,
        description="seeds of every run; None: those of the scale",
        json_schema_extra={"unit": "-"},
    )
    settings: tuple[str, ...] = Field(
        (), description="changes of the scale: A.B=VALUE, such as distill.optimizer.epochs=1"
    )
