"""Configuration of stage three, which finetunes a classifier and evaluates it."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from distinit.schemas.base import DEPENDENT_DEFAULT, NOT_IDENTITY, Record
from distinit.schemas.compute import ComputeConfig, Device
from distinit.schemas.evaluation import (
    PROTOCOL,
    PROTOCOL_NAMES,
    Average,
    ScoredSubset,
    protocol_remedy,
)
from distinit.schemas.training import (
    ClipConfig,
    OptimizerConfig,
    Precision,
    RuntimeConfig,
    StudentConfig,
    with_fitting_batch,
    with_flow_pixels,
)
from distinit.schemas.wording import did_you_mean, shown

__all__ = [
    "FINETUNE_OPTIMIZER",
    "SCRATCH_OPTIMIZER",
    "DatasetConfig",
    "EvaluateConfig",
    "EvaluatedDatasetConfig",
    "EvaluationConfig",
    "FinetuneConfig",
    "check_init",
]

FINETUNE_OPTIMIZER = OptimizerConfig(
    learning_rate=0.002, step_epochs=8, epochs=32, weight_decay=5e-3
)
"""For pretrained students: LR .002 and x.1 after every quarter of the epochs, as in the paper (8
epochs of 40 k clips). VMZ: decay 5e-3."""

SCRATCH_OPTIMIZER = OptimizerConfig(
    learning_rate=0.01, step_epochs=10, epochs=45, weight_decay=5e-3
)
"""For training from scratch: LR .01, x.1 every 10 epochs, 45 epochs, as in the paper."""

_STEPS_OF_PRETRAINED = 4  # values of the learning rate in a training
_UNUSED_STEP_EPOCHS = 2  # of pretrained students without the step schedule, as in earlier versions


def _step_epochs_of_pretrained(configured: dict[str, Any]) -> int:
    """Default of ``step_epochs`` for pretrained students: a quarter of the epochs (paper)."""
    if configured.get("schedule", "step") != "step":
        return _UNUSED_STEP_EPOCHS
    epochs = configured.get("epochs", FINETUNE_OPTIMIZER.epochs)
    return max(1, math.ceil(epochs / _STEPS_OF_PRETRAINED)) if type(epochs) is int else 1


_INIT = re.compile(r"scratch|inflated|(distinit|inflated|file):.+")


def check_init(value: str) -> str:
    """``value``, if it has the form of an init. Raises ValueError."""
    if not _INIT.fullmatch(value):
        _, colon, path = value.partition(":")
        known = ("distinit", "inflated", "file") if colon else ("scratch", "inflated")
        guess = did_you_mean(value, [f"{name}{colon}{path}" for name in known])
        raise ValueError(
            f"{shown(value)} is not one of scratch, distinit:RUN, inflated, inflated:FILE, "
            f"file:STUDENT{f'; {guess}' if guess else ''}"
        )
    return value


class DatasetConfig(Record):
    """A labelled video dataset."""

    root: Annotated[str, NOT_IDENTITY] = Field(
        description="folder of class folders with videos, or a CSV with path,label,split, whose "
        "paths are absolute or relative to its folder"
    )
    splits: Annotated[str | None, NOT_IDENTITY] = Field(
        None,
        description="folder or file of official split lists (HMDB-51, UCF-101), or a CSV with "
        "path,label,split; None: root is such a CSV, or has train/, val/ and test/",
    )
    split: int = Field(
        1,
        ge=1,
        le=3,
        description="number of the official split",
        json_schema_extra={"unit": "-"},
    )


class EvaluationConfig(Record):
    """Which clips of a test video are scored, and how their scores are averaged."""

    protocol: str = Field(
        "vmz-10",
        description="vmz-N: N evenly spaced clips; dense-sN: a clip at every N-th frame; slowfast- "
        "TxS: T evenly spaced clips, each with S crops along the longer side",
        json_schema_extra={"source": "paper, VMZ: vmz-10; PySlowFast: slowfast-10x3"},
    )

    average: Average = Field(
        "softmax",
        description="scores of a video: softmax, the mean of its clips' softmax; logits, the mean "
        "of their logits; max, the maximum of their softmax for each class",
        json_schema_extra={"source": "VMZ, PySlowFast: softmax"},
    )
    precision: Precision = Field(
        "fp32",
        description="precision of the forward pass: fp32, tf32 or bf16, as runtime.precision; "
        "softmax and means are always computed in fp64",
        json_schema_extra={"source": "VMZ: fp32"},
    )

    @field_validator("protocol")
    @classmethod
    def _known(cls, value: str) -> str:
        if PROTOCOL.fullmatch(value) is None:
            remedy = protocol_remedy(value)
            raise ValueError(f"{shown(value)} is not one of {PROTOCOL_NAMES}; {remedy}")
        return value


class FinetuneConfig(Record):
    """Configuration of `distinit finetune`; one such YAML file reproduces a classifier."""

    dataset: DatasetConfig = Field(description="labelled videos")
    init: Annotated[str, NOT_IDENTITY] = Field(
        "scratch",
        description="initial weights: scratch | distinit:RUN (a distill run) | inflated "
        "(torchvision's ImageNet weights on this machine) | inflated:FILE (a 2D state dict) | "
        "file:STUDENT (.safetensors)",
    )
    out: Annotated[str, NOT_IDENTITY] = Field(
        description="run directory; it belongs to exactly one configuration"
    )
    frames: Annotated[str | None, NOT_IDENTITY] = Field(
        None, description="frame store of the dataset; None: OUT/frames"
    )
    flow: Annotated[str | None, NOT_IDENTITY] = Field(
        None,
        description="for students of flow: flow store of the dataset, computed from `frames` if "
        "it is missing; None: OUT/flow",
    )
    student: StudentConfig | None = Field(
        None, description="network to train; None: the network of the distilled run"
    )
    train_layers: Literal["all", "head"] = Field(
        "all", description="layers to train; head: the backbone is frozen (linear probe)"
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the target spread evenly over all classes",
        json_schema_extra={"unit": "share", "source": "paper: 0; PySlowFast for MViT: .1"},
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability of dropping a feature before the classifier, in training only",
        json_schema_extra={
            "unit": "probability",
            "source": "paper: 0; PySlowFast for MViT and Video-Swin: .5",
        },
    )
    clip: ClipConfig = Field(
        default_factory=ClipConfig, description="clip geometry and normalisation"
    )
    optimizer: Annotated[OptimizerConfig, DEPENDENT_DEFAULT] = Field(
        default_factory=lambda: SCRATCH_OPTIMIZER,
        description="the defaults depend on init; scratch: LR .01, 45 epochs, x.1 every 10; "
        "others: LR .002, 32 epochs, x.1 every 8",
    )
    runtime: RuntimeConfig = Field(
        default_factory=RuntimeConfig, description="devices, workers and batches"
    )
    evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig, description="evaluation at the end of training"
    )
    eval_every: Annotated[int | None, NOT_IDENTITY] = Field(
        None,
        ge=1,
        description="also evaluate after every N epochs of training, on the val videos if the "
        "dataset has some, else on the test videos; None: only at the end",
        json_schema_extra={"unit": "epochs"},
    )

    @model_validator(mode="before")
    @classmethod
    def _schedule_of_init(cls, values: Any) -> Any:
        """Use the values for this init as the defaults of ``optimizer``."""
        if not isinstance(values, dict):
            return values
        configured = values.get("optimizer", {})
        if not isinstance(configured, dict):
            return values
        scratch = values.get("init", "scratch") == "scratch"
        preset = SCRATCH_OPTIMIZER if scratch else FINETUNE_OPTIMIZER
        defaults = preset.model_dump(exclude={"step_epochs"})
        if not scratch:
            defaults["step_epochs"] = _step_epochs_of_pretrained(configured)
        if configured.get("name") == "adamw":
            del defaults["learning_rate"]  # it is for SGD
        return {**values, "optimizer": {**defaults, **configured}}

    @model_validator(mode="before")
    @classmethod
    def _batch_of_epoch(cls, values: Any) -> Any:
        return with_fitting_batch(values)

    @model_validator(mode="before")
    @classmethod
    def _pixels_of_flow(cls, values: Any) -> Any:
        return with_flow_pixels(values)

    @field_validator("init")
    @classmethod
    def _known_init(cls, value: str) -> str:
        return check_init(value)


class EvaluatedDatasetConfig(Record):
    """The dataset of a finetune run: where its videos are, and which split it should have."""

    root: str | None = Field(
        None,
        description="folder of the videos, or a CSV as for finetune; None: they are not needed",
    )
    splits: str | None = Field(
        None,
        description="split lists or CSV, as for finetune, to compare with the run; needs root",
    )
    split: int | None = Field(
        None,
        ge=1,
        le=3,
        description="number of the official split, which must be that of the run; None: the run's",
        json_schema_extra={"unit": "-"},
    )

    @model_validator(mode="after")
    def _lists_have_videos(self) -> Self:
        if self.splits is not None and self.root is None:
            raise ValueError(
                "splits needs root, the folder of the videos (--dataset); without both, the labels "
                "that the run recorded are used"
            )
        return self


class EvaluateConfig(Record):
    """Configuration of `distinit evaluate`, which scores a finetuned run again."""

    run: str = Field(description="a finetune run directory")
    frames: str | None = Field(
        None,
        description="the run's frame store (flow store for a student of flow); None: the store "
        "that the run was trained with, if it is in the run or up to two folders above it",
    )
    dataset: EvaluatedDatasetConfig | None = Field(
        None,
        description="the run's dataset, if its frame store is missing: it is then built from the "
        "test videos, which must be those of the run, in the same classes; without splits, the "
        "labels of a CSV or of official lists are those that the run recorded",
    )
    student: str | None = Field(
        None,
        description="plugin:module:function, if that is the run's network: code that a file names "
        "is only run if you name it here",
    )
    evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig, description="which clips to score"
    )
    subset: ScoredSubset | None = Field(
        None,
        description="videos to score: val or test; None: test, or val if the dataset has no test "
        "videos",
    )
    from_scores: bool = Field(
        False,
        description="compute the metrics from the scores that an earlier evaluation with this "
        "protocol stored in the run; needs neither network nor frames",
    )
    batch_size: int = Field(
        16, ge=1, description="clips per forward pass", json_schema_extra={"unit": "clips"}
    )
    device: Device = Field(
        "auto", description="auto, cpu, cuda, cuda:N; Ray workers use the GPUs that they reserve"
    )
    compute: ComputeConfig = Field(
        default_factory=ComputeConfig, description="workers among which the videos are split"
    )

    @property
    def videos(self) -> str | None:
        """Folder or CSV of the dataset's videos, if it was named."""
        return None if self.dataset is None else self.dataset.root
