"""Configuration shared by distillation and finetuning: student, clips, optimiser, runtime."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from distinit.schemas.base import ADDED_LATER, DEPENDENT_DEFAULT, NOT_IDENTITY, PLUGIN, Record, Seed
from distinit.schemas.compute import Device
from distinit.schemas.wording import shown

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "FLOW_PIXELS",
    "ClipConfig",
    "OptimizerConfig",
    "Precision",
    "RuntimeConfig",
    "StudentConfig",
    "with_fitting_batch",
    "with_flow_pixels",
]

FLOW_PIXELS = {"mean": (0.0046635, 0.0046261), "std": (0.972347, 0.755146)}
"""``ClipConfig.mean`` and ``std`` of optical flow: x and y, pixels per frame (VMZ)."""


DEFAULT_BATCH_SIZE = 32
"""Clips per shard per step (paper: 24-32 per GPU)."""

Precision = Literal["fp32", "tf32", "bf16"]
"""Arithmetic of a student; see ``RuntimeConfig.precision``."""

_PLUGIN_NAME = re.compile(rf"{PLUGIN}[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
_MAX_CLIP_PIXELS = 1 << 26
"""1,024 frames of 256 x 256. The limit also applies to records of runs received from others."""


class StudentConfig(Record):
    """A video network and its number of input channels."""

    name: str = Field(
        "r2plus1d_18",
        max_length=200,
        description="r3d_18, mc3_18, r2plus1d_18, s3d, ... (torchvision); vmz_r3d_18, "
        "vmz_r2plus1d_18, ... (VMZ); tiny_r2plus1d_10, tiny_r3d_9, ... (CPU); "
        "plugin:module:function",
    )
    in_channels: Literal[2, 3] = Field(3, description="3 for RGB, 2 for optical flow")

    @field_validator("name")
    @classmethod
    def _plugin(cls, value: str) -> str:
        if value.startswith(PLUGIN) and not _PLUGIN_NAME.fullmatch(value):
            raise ValueError(f"student {shown(value)} is not of the form plugin:module:function")
        return value


class ClipConfig(Record):
    """How stored frames become a clip tensor [B, C, T, H, W]."""

    frames: int = Field(
        8,
        ge=1,
        description="T, consecutive frames at the native frame rate",
        json_schema_extra={"unit": "frames", "source": "paper: 8 and 32"},
    )
    crop: int = Field(
        112,
        ge=16,
        description="size of the random square crop",
        json_schema_extra={"unit": "pixels", "source": "VMZ: 112"},
    )
    flip: float = Field(
        0.5,
        ge=0,
        le=1,
        description="probability of a horizontal flip",
        json_schema_extra={"unit": "probability", "source": "VMZ: .5"},
    )
    mean: Annotated[tuple[float, ...], DEPENDENT_DEFAULT] = Field(
        (0.43216, 0.394666, 0.37645),
        max_length=3,
        description="mean per channel. For flow, the default is 0.0046635, 0.0046261",
        json_schema_extra={"unit": "RGB 0..1; flow: pixels per frame", "source": "VMZ"},
    )
    std: Annotated[tuple[float, ...], DEPENDENT_DEFAULT] = Field(
        (0.22803, 0.22145, 0.216989),
        max_length=3,
        description="standard deviation per channel. For flow, the default is 0.972347, 0.755146",
        json_schema_extra={"unit": "as mean", "source": "VMZ"},
    )
    flow_range: float = Field(
        20.0,
        gt=0,
        description="flow only: the largest motion that the flow store can hold; must equal that "
        "of the store",
        json_schema_extra={"unit": "pixels per frame", "source": "decision 15"},
    )

    @model_validator(mode="after")
    def _fits_in_memory(self) -> Self:
        if self.frames * self.crop**2 > _MAX_CLIP_PIXELS:
            raise ValueError(
                f"a clip of {self.frames} frames of {self.crop} x {self.crop} has more than "
                f"{_MAX_CLIP_PIXELS:,} pixels"
            )
        if any(value <= 0 for value in self.std):
            raise ValueError("std: values must be above 0")
        return self


_Beta = Annotated[float, Field(ge=0, lt=1)]
_PAPER_EPOCHS, _PAPER_STEP_EPOCHS = 45, 10


def _step_epochs(values: dict[str, Any]) -> int:
    """Default of ``step_epochs``: the paper's share of the epochs; unused by other schedules."""
    if values.get("schedule") != "step":
        return _PAPER_STEP_EPOCHS
    epochs: int = values.get("epochs", _PAPER_EPOCHS)  # absent if it is invalid
    return math.ceil(epochs * _PAPER_STEP_EPOCHS / _PAPER_EPOCHS)


class OptimizerConfig(Record):
    """The optimiser and its schedule. The defaults are the paper's and VMZ's: SGD, x.1 in steps."""

    name: Annotated[Literal["sgd", "adamw"], ADDED_LATER] = Field(
        "sgd",
        description="algorithm of the optimiser",
        json_schema_extra={
            "source": "paper: sgd; PySlowFast for MViT, Video-Swin for Swin3D: adamw"
        },
    )
    learning_rate: float = Field(
        0.01,
        gt=0,
        allow_inf_nan=False,
        description="learning rate per shard",
        json_schema_extra={"unit": "none", "source": "paper, section 4: .01 per GPU"},
    )
    scale_by_workers: bool = Field(
        True,
        description="multiply the learning rate by runtime.shards (the name of this setting is "
        "kept for old configurations)",
        json_schema_extra={"source": "paper: one shard per GPU"},
    )
    momentum: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="sgd only: momentum",
        json_schema_extra={"unit": "none", "source": "paper: .9"},
    )
    nesterov: bool = Field(
        True, description="sgd only: Nesterov momentum", json_schema_extra={"source": "VMZ: true"}
    )
    betas: Annotated[tuple[_Beta, _Beta], ADDED_LATER] = Field(
        (0.9, 0.999),
        description="adamw only: decay rates of the means of the gradient and of its square",
        json_schema_extra={"unit": "none", "source": "PySlowFast, Video-Swin: .9, .999"},
    )
    eps: Annotated[float, ADDED_LATER] = Field(
        1e-8,
        gt=0,
        description="adamw only: added to the denominator",
        json_schema_extra={"unit": "as gradient", "source": "PySlowFast: 1e-8"},
    )
    weight_decay: float = Field(
        1e-4,
        ge=0,
        description="weight decay",
        json_schema_extra={
            "unit": "none",
            "source": "VMZ: 1e-4; finetuning: 5e-3; adamw: PySlowFast .05, Video-Swin .02",
        },
    )
    decay_biases: bool = Field(
        False,
        description="apply weight decay to biases too, those of batch norm included",
        json_schema_extra={"source": "VMZ: false"},
    )
    decay_norms: Annotated[bool, ADDED_LATER] = Field(
        True,
        description="apply weight decay to the scales of normalisation layers and to the tables of "
        "relative positions of Swin3D",
        json_schema_extra={"source": "VMZ: true; PySlowFast, Video-Swin: false"},
    )
    schedule: Literal["step", "cosine", "constant"] = Field(
        "step", description="learning rate schedule", json_schema_extra={"source": "paper: step"}
    )
    gamma: float = Field(
        0.1,
        gt=0,
        le=1,
        description="schedule step: decay of the learning rate",
        json_schema_extra={"unit": "none", "source": "paper: .1"},
    )
    warmup_epochs: float = Field(
        0.0, ge=0, description="length of the linear warmup", json_schema_extra={"unit": "epochs"}
    )
    warmup_start_factor: Annotated[float, ADDED_LATER] = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the learning rate that the warmup starts from",
        json_schema_extra={
            "unit": "share",
            "source": "torchvision's video recipe: .001; PySlowFast: .01; Video-Swin: .1",
        },
    )
    cosine_end_factor: Annotated[float, ADDED_LATER] = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the learning rate that the cosine schedule ends at",
        json_schema_extra={"unit": "share", "source": "PySlowFast: .01; Video-Swin: 0"},
    )
    epochs: int = Field(
        45,
        ge=1,
        description="length of the training. Default for finetuning a pretrained student: 32",
        json_schema_extra={"unit": "epochs", "source": "paper: 45; finetuning: 8"},
    )
    step_epochs: int = Field(
        default_factory=_step_epochs,
        ge=1,
        description="time between decays, counted from the end of the warmup. Default: the same "
        "share of epochs as in the paper",
        json_schema_extra={"unit": "epochs", "source": "paper: 10 of 45; finetuning: 2 of 8"},
    )
    clips_per_epoch: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        "auto",
        description="length of an epoch. auto: one clip per video, but at least 10 steps; the "
        "number is recorded in the run. None: one clip per video",
        json_schema_extra={"unit": "clips", "source": "paper: 1 M; finetuning: 40 k"},
    )
    clip_gradient_norm: float | None = Field(
        None,
        gt=0,
        description="largest norm of the gradient; a larger gradient is scaled down to it",
        json_schema_extra={"unit": "L2 norm", "source": "PySlowFast for MViT: 1"},
    )

    @model_validator(mode="before")
    @classmethod
    def _rate_of_adamw(cls, values: Any) -> Any:
        if (
            isinstance(values, dict)
            and values.get("name") == "adamw"
            and "learning_rate" not in values
        ):
            raise ValueError(
                "adamw needs a learning_rate: the defaults are for sgd, far too large for adamw"
            )
        return values


class RuntimeConfig(Record):
    """How training is executed.

    ``seed``, ``shards`` and ``batch_size`` decide which samples a step sees; ``precision`` and
    ``jpeg_decoder`` change rounding. Fields marked NOT_IDENTITY change neither.
    """

    batch_size: Annotated[int, DEPENDENT_DEFAULT] = Field(
        DEFAULT_BATCH_SIZE,
        ge=1,
        description="clips per shard per step. Lower by default if an epoch has fewer clips",
        json_schema_extra={"unit": "clips", "source": "paper: 24-32 per GPU"},
    )
    shards: int = Field(
        1,
        ge=1,
        description="batches per optimiser step, spread over workers: the global batch is "
        "batch_size x shards for any worker count that divides it",
        json_schema_extra={"unit": "batches"},
    )
    workers: Annotated[int, NOT_IDENTITY] = Field(
        0,
        ge=0,
        description="Ray Train workers; 0 trains in this process, or in those that torchrun has "
        "started",
        json_schema_extra={"unit": "workers"},
    )
    gpus_per_worker: Annotated[float, NOT_IDENTITY] = Field(
        0.0, ge=0, description="GPUs that each worker reserves", json_schema_extra={"unit": "GPUs"}
    )
    ray_address: Annotated[str | None, NOT_IDENTITY] = Field(
        None,
        description="address of a running Ray cluster (auto, HOST:6379); None starts a local one",
    )
    loader_workers: Annotated[int, NOT_IDENTITY] = Field(
        0,
        ge=0,
        le=1024,
        description="loader threads per worker; 0 loads in the training thread",
        json_schema_extra={"unit": "threads"},
    )
    jpeg_decoder: Literal["cpu", "gpu"] = Field(
        "cpu",
        description="cpu: loader threads decode stored frames; gpu: nvJPEG on the student's device",
    )
    device: Annotated[Device, NOT_IDENTITY] = Field("auto", description="auto, cpu, cuda, cuda:N")
    precision: Precision = Field(
        "fp32",
        description="fp32: full float32; tf32: float32 whose products have 10 bits of mantissa on "
        "GPUs that can (Ampere and later), on a CPU the same as fp32; bf16: autocast to bfloat16",
    )
    compile: Annotated[bool, NOT_IDENTITY] = Field(
        False, description="use torch.compile for the student"
    )
    reduction: Annotated[Literal["auto", "exact", "overlapped"], ADDED_LATER] = Field(
        "auto",
        description="how gradients are averaged over shards. overlapped: by "
        "DistributedDataParallel, during the backward pass; exact: after it, on a CPU in float64, "
        "so that the number of workers does not even change rounding. auto: exact on a CPU, "
        "overlapped on GPUs",
    )
    log_seconds: Annotated[float, NOT_IDENTITY] = Field(
        1.0,
        ge=0,
        description="time between metric lines; every epoch ends with one; 0: every step",
        json_schema_extra={"unit": "seconds"},
    )
    checkpoint_seconds: Annotated[float, NOT_IDENTITY] = Field(
        300.0, ge=0, description="time between checkpoints", json_schema_extra={"unit": "seconds"}
    )
    checkpoint_steps: Annotated[int | None, NOT_IDENTITY] = Field(
        None, ge=1, description="steps between checkpoints", json_schema_extra={"unit": "steps"}
    )
    keep_checkpoints: Annotated[int, NOT_IDENTITY] = Field(
        2,
        ge=1,
        description="number of newest checkpoints to keep",
        json_schema_extra={"unit": "checkpoints"},
    )
    loggers: Annotated[tuple[Literal["tensorboard", "wandb"], ...], NOT_IDENTITY] = Field(
        ("tensorboard",),
        max_length=2,
        description="where metrics are shown besides metrics.jsonl: tensorboard, wandb (an extra: "
        "pip install '.[wandb]')",
    )
    seed: Seed = Field(
        0,
        description="random numbers depend only on seed, epoch and sample",
        json_schema_extra={"unit": "-"},
    )


def with_flow_pixels(values: Any) -> Any:
    """Raw values of a configuration, with FLOW_PIXELS as the defaults of ``clip`` for flow.

    Values of a student that does not read flow are returned unchanged.
    """
    if not isinstance(values, dict):
        return values
    student, clip = values.get("student"), values.get("clip", {})
    channels = student.get("in_channels") if isinstance(student, dict) else None
    if isinstance(student, StudentConfig):
        channels = student.in_channels
    if channels != 2 or not isinstance(clip, dict):
        return values
    return {**values, "clip": {**FLOW_PIXELS, **clip}}


def with_fitting_batch(values: Any) -> Any:
    """Raw values of a configuration; by default a step is no larger than an epoch.

    Values with a ``batch_size`` or without a number of ``clips_per_epoch`` are returned unchanged.
    """
    if not isinstance(values, dict):
        return values
    optimizer, runtime = values.get("optimizer"), values.get("runtime", {})
    if not isinstance(optimizer, dict) or not isinstance(runtime, dict):
        return values
    clips, shards = optimizer.get("clips_per_epoch"), runtime.get("shards", 1)
    if "batch_size" in runtime or type(clips) is not int or type(shards) is not int:
        return values
    size = max(1, clips // max(1, shards))
    if size >= DEFAULT_BATCH_SIZE:
        return values
    return {**values, "runtime": {**runtime, "batch_size": size}}
