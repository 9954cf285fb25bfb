"""Configuration and records of `distinit features`: last-layer features of labelled videos."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from distinit.schemas.base import Name, Record, Seed, Sha256, sha256_of
from distinit.schemas.compute import Device
from distinit.schemas.dataset import MAX_LABELS
from distinit.schemas.finetune import DatasetConfig, EvaluationConfig, check_init
from distinit.schemas.manifest import FileEntry
from distinit.schemas.training import ClipConfig, StudentConfig
from distinit.schemas.wording import counted, first_names, one_line

__all__ = ["FeatureInputs", "FeaturesConfig", "FeaturesRecord", "FeaturesResult", "LabelledInput"]


class LabelledInput(Record):
    """The labelled videos whose features are computed, and how."""

    dataset: DatasetConfig = Field(description="labelled videos")
    frames: str | None = Field(
        None, description="frame store of the dataset, built if it is missing; None: OUT/frames"
    )
    flow: str | None = Field(
        None,
        description="for students of flow: flow store of the dataset, computed from `frames` if "
        "it is missing; None: OUT/flow",
    )
    student: StudentConfig | None = Field(
        None, description="network; None: the network that the record of the student names"
    )
    clip: ClipConfig = Field(
        default_factory=ClipConfig,
        description="clip settings that differ from those that the student was trained with; for "
        "networks without a record, that differ from the defaults",
    )
    evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig,
        description="the clips of a video, whose features are averaged",
    )
    batch_size: int = Field(
        16, ge=1, description="clips per forward pass", json_schema_extra={"unit": "clips"}
    )
    loader_workers: int = Field(
        0, ge=0, le=1024, description="loader threads", json_schema_extra={"unit": "threads"}
    )
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N")
    seed: Seed = Field(
        0,
        description="seed of random weights and of random choices",
        json_schema_extra={"unit": "-"},
    )


class FeaturesConfig(LabelledInput):
    """Configuration of `distinit features`."""

    run: str | None = Field(None, description="a distill or finetune run directory")
    init: str | None = Field(
        None, description="instead of `run`: any init, as for `distinit finetune`"
    )
    out: str = Field(description="folder to write to; it belongs to one student and dataset")

    @field_validator("init")
    @classmethod
    def _known_init(cls, value: str | None) -> str | None:
        return value if value is None else check_init(value)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.run is None) == (self.init is None):
            raise ValueError("give either --run or --init")
        return self


class FeatureInputs(Record):
    """Everything that decides the values of the features. Equal inputs give equal features."""

    network: StudentConfig = Field(description="network that computes the features")
    weights_sha256: Sha256 = Field(description="over all tensors of the backbone")
    clip: ClipConfig = Field(description="size and normalisation of the clips")
    protocol: str = Field(description="clips of a video, whose features are averaged")
    dataset_digest: Sha256 = Field(description="over classes, labels, subsets and video bytes")
    rows_sha256: Sha256 = Field(
        description="over the digests of the videos with features, in order"
    )
    pixels_digest: Sha256 = Field(description="geometry of the frame store, and its flow")

    def identity(self) -> str:
        """sha256 of these inputs; a flip is never applied, so its probability does not count."""
        return sha256_of(self.model_dump(mode="json", exclude={"clip": {"flip"}}))


class FeaturesRecord(Record):
    """``features.json``, written last: describes the files next to it."""

    format: Literal["distinit-features"] = Field(
        "distinit-features", description="name of the record's format"
    )
    format_version: int = Field(
        1, description="version of the record's format; a reader refuses others"
    )
    init: Name = Field(description="what the features are of, as it was requested")
    inputs: FeatureInputs = Field(description="what the features were computed from")
    identity: Sha256 = Field(description="sha256 of `inputs`")
    feature_dim: int = Field(ge=1, description="length of a feature")
    videos: int = Field(ge=1, description="rows of the files")
    classes: tuple[str, ...] = Field(max_length=MAX_LABELS, description="label names by index")
    undecodable: tuple[str, ...] = Field(
        description="paths of the videos that could not be decoded and have no features"
    )
    device: str = Field(description="device that ran the network")
    software: dict[str, str] = Field(description="package -> version")
    files: dict[str, FileEntry] = Field(description="file name -> size and sha256")


class FeaturesResult(Record):
    """The files of an export."""

    out: str = Field(description="folder of the files")
    files: tuple[str, ...] = Field(description="paths of the files")
    record: FeaturesRecord = Field(description="content of `features.json`")

    def summary(self) -> str:
        """What was exported, and where to."""
        record = self.record
        lines = [
            f"{counted(record.videos, 'video')}, {record.feature_dim} features of "
            f"{one_line(record.inputs.network.name)} ({one_line(record.init)}), mean over the "
            f"clips of {record.inputs.protocol}",
        ]
        if record.undecodable:
            lines.append(
                f"left out, could not be decoded: {one_line(first_names(record.undecodable))}"
            )
        return "\n".join([*lines, *(one_line(path) for path in self.files)])
