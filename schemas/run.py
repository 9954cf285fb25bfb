"""The JSON records of a training run: run, checkpoint, student, thresholds and result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from distinit.schemas.base import Name, Record, SealedRecord, Sha256, without_none
from distinit.schemas.evaluation import Average, ScoredSubset
from distinit.schemas.manifest import FileEntry
from distinit.schemas.teacher import MAX_CLASSES
from distinit.schemas.thresholds import TargetShare
from distinit.schemas.training import ClipConfig, Precision, StudentConfig
from distinit.schemas.wording import counted, one_line, shell_line

__all__ = [
    "TOP5_CLASSES",
    "CheckpointRecord",
    "DistillResult",
    "EvaluationResult",
    "HeadRecord",
    "LeftOut",
    "LoadReport",
    "RunRecord",
    "StudentRecord",
    "WandbRecord",
]


MAX_HEADS = 64
MAX_STEPS = 10**12
TOP5_CLASSES = 5
"""With so many classes, or fewer, top-5 accuracy is always 100 % and not shown."""


class HeadRecord(Record):
    """One linear head of a student: ``heads.<name>.weight`` and ``.bias``."""

    name: Name = Field(description="name of the head: the teacher's id, mean, or labels")
    outputs: int = Field(ge=1, le=MAX_CLASSES, description="number of logits")
    label_space: Name = Field(description="name of the set of classes")
    teacher_fingerprint: Sha256 | None = Field(
        None,
        description="fingerprint of the only teacher that the head learns from; None: of a mean "
        "or labels",
    )
    mean_of: dict[str, Sha256] = Field(
        default_factory=dict,
        description="of a head that learns the mean of teachers: teacher id -> fingerprint",
    )
    flipped_clips: (
        Literal["target of the unflipped frame", "target of the flipped frame"] | None
    ) = Field(
        None, description="the target that a distilled head was trained with for flipped clips"
    )
    normalize: Literal["standardize", "phi_s"] | None = Field(
        None,
        description="how the features of its teacher were normalized: what the head puts out is "
        "undone with normalization.safetensors. None: they were not, and the key is left out",
    )
    cells: int | None = Field(
        None,
        ge=1,
        description="cells of a grid of features: outputs are [cells, channels], flattened. None: "
        "a single vector, and the key is left out",
    )

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(dump(self), "normalize", "cells")


class StudentRecord(Record):
    """``student.json``: describes the network in ``student.safetensors``, next to it."""

    format: Literal["distinit-student"] = Field(
        "distinit-student", description="name of the record's format"
    )
    format_version: int = Field(
        1, description="version of the record's format; a reader refuses others"
    )
    student: StudentConfig = Field(description="architecture of the network")
    clip: ClipConfig = Field(description="clips that it was trained on")
    feature_dim: int = Field(ge=1, description="width of the pooled feature that the heads read")
    heads: tuple[HeadRecord, ...] = Field(
        max_length=MAX_HEADS, description="linear heads: one per teacher or mean, or the classifier"
    )
    trained_by: Literal["distill", "finetune"] = Field(description="stage that trained it")
    cache_digest: Sha256 | Literal[""] | None = Field(
        None, description="content digest of the target cache"
    )
    label_names: tuple[str, ...] = Field((), description="classes of a finetuned head")
    tensors: FileEntry | None = Field(
        None, description="size and sha256 of student.safetensors, to detect damage"
    )
    normalization: FileEntry | None = Field(
        None,
        description="size and sha256 of normalization.safetensors. None: no head has normalized "
        "targets, and the key is left out",
    )
    config: dict[str, Any] = Field(description="the whole configuration of the run")

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(dump(self), "normalization")


class RunRecord(Record):
    """``run.json``: the configuration and inputs that a run directory belongs to."""

    format: Literal["distinit-run"] = Field(
        "distinit-run", description="name of the record's format"
    )
    format_version: int = Field(
        1, description="version of the record's format; a reader refuses others"
    )
    kind: Literal["distill", "finetune"] = Field(description="stage that trains")
    config_digest: str = Field(
        description="sha256 over the kind, and the configuration and inputs that decide what is "
        "computed"
    )
    config: dict[str, Any] = Field(description="the whole configuration of the run")
    inputs: dict[str, str] = Field(description="digests of the data that the run reads")
    versions: dict[str, str] = Field(description="package -> its version when the run began")
    cache_digest: Sha256 | Literal[""] | None = Field(
        None, description="content digest of the target cache of a distill run, when it began"
    )


class WandbRecord(Record):
    """``wandb.json``: the run at wandb that the metrics of a run directory go to."""

    format: Literal["distinit-wandb"] = Field(
        "distinit-wandb", description="name of the record's format"
    )
    format_version: int = Field(
        1, description="version of the record's format; a reader refuses others"
    )
    run_id: str = Field(pattern="^[0-9a-f]{32}$", description="id of the run at wandb")


class CheckpointRecord(SealedRecord):
    """``checkpoints/step-NNNNNNNNN/checkpoint.json``: the step at which training resumes."""

    format: Literal["distinit-checkpoint"] = Field(
        "distinit-checkpoint", description="name of the record's format"
    )
    format_version: int = Field(
        1, description="version of the record's format; a reader refuses others"
    )
    config_digest: str = Field(
        description="digest of the run's configuration; no other run loads the checkpoint"
    )
    epoch: int = Field(ge=0, le=MAX_STEPS, description="epoch of the next step, from 0")
    step: int = Field(ge=0, le=MAX_STEPS, description="next step within the epoch")
    global_step: int = Field(ge=0, le=MAX_STEPS, description="optimiser steps done")
    window: dict[str, float] = Field(description="metrics summed since the last metric line")
    window_steps: int = Field(ge=0, le=MAX_STEPS, description="steps in the window")
    epoch_loss: float = Field(0.0, description="loss summed over the steps of the epoch so far")
    files: dict[str, FileEntry] = Field(
        description="name of each file of the checkpoint -> size and sha256"
    )


class LeftOut(Record):
    """Number of videos of a target cache that are not trained on, by reason."""

    failed: int = Field(
        0, ge=0, description="could not be decoded for the cache or for the frame store"
    )
    gone: int = Field(0, ge=0, description="no longer in the corpus of the cache")
    not_in_store: int = Field(0, ge=0, description="no video with this content in the frame store")
    unknown_in_store: int = Field(
        0,
        ge=0,
        description="without --match: videos of the frame store that the cache does not have, "
        "counted if videos of the cache are not in the store; they may be copies of these",
    )
    other_frame_count: int = Field(
        0, ge=0, description="the frame store has another number of frames than the cache"
    )
    refused_by_match: int = Field(
        0, ge=0, description="no usable copy in the frame store, according to the mapping file"
    )
    without_targets: int = Field(0, ge=0, description="no frame has a target of a teacher in use")
    examples: tuple[str, ...] = Field((), description="paths and reasons of some of these videos")

    @property
    def of_store(self) -> int:
        """Videos that are left out because of what is in the frame store."""
        return self.not_in_store + self.other_frame_count + self.refused_by_match

    def lines(self, *, with_examples: bool = True) -> list[str]:
        """Counts, examples in lines of their own, a hint; none if no video was left out."""
        counts = {
            "failed": self.failed,
            "no longer in the corpus": self.gone,
            "not in the frame store": self.not_in_store,
            "with another number of frames in the frame store": self.other_frame_count,
            "without a usable copy": self.refused_by_match,
            "without a target": self.without_targets,
        }
        reasons = [f"{count} {why}" for why, count in counts.items() if count]
        if not reasons:
            return []
        lines = [f"left out: {', '.join(reasons)}"]
        if with_examples:
            lines += [f"  {one_line(text)}" for text in self.examples]
        if self.unknown_in_store:
            lines.append(f"warning: {self.hint()}")
        return lines

    def hint(self) -> str:
        """What to do about videos of the frame store that the cache does not have."""
        return (
            f"the frame store has {counted(self.unknown_in_store, 'video')} with other bytes than "
            "any video of the cache: if these are your own copies, give the mapping file of "
            "`distinit cache match` with --match"
        )


class DistillResult(Record):
    """``result.json`` of a distill run, written when the run is finished."""

    out: str = Field(description="run directory")
    student: str = Field(description="path of student.safetensors; student.json is next to it")
    cache_digest: str = Field(
        description="content digest of the target cache; empty if it was incomplete"
    )
    videos: int = Field(description="number of videos trained on")
    loss: float = Field(description="mean training loss of the last epoch")
    epochs: int = Field(description="number of epochs trained")
    steps: int = Field(description="number of optimiser steps, over all epochs")
    clips: int = Field(description="clips trained on, over all epochs")
    resumed_clips: int = Field(
        0, ge=0, description="those of `clips` that earlier processes had trained on"
    )
    seconds: float = Field(description="duration of the process that finished the run")
    bottleneck: str = Field("", description="the largest part of a step, and how to reduce it")
    targets: dict[str, TargetShare] = Field(
        default_factory=dict, description="share of the clips with a target, by head"
    )
    left_out: LeftOut = Field(
        default_factory=LeftOut, description="videos of the cache that were not trained on"
    )
    absent_teachers: tuple[str, ...] = Field(
        (), description="teachers of the cache that this copy of the cache lacks"
    )
    incomplete_teachers: dict[str, tuple[int, int]] = Field(
        default_factory=dict,
        description="teachers in use that are incomplete: (units present, units planned)",
    )

    def summary(self) -> str:
        """What was trained, where it was written, and the next command."""
        lines = [
            f"{counted(self.epochs, 'epoch')}, {counted(self.steps, 'step')}, "
            f"{counted(self.clips, 'clip')} of {counted(self.videos, 'video')}{self._duration()}",
            f"mean loss of the last epoch: {self.loss:.4f}",
            *([self.bottleneck] if self.bottleneck else []),
            *(line for head, share in self.targets.items() for line in share.lines(head)),
            *self.left_out.lines(with_examples=False),
            "",
            f"student  {one_line(self.student)}",
            f"curve    {one_line(Path(self.out) / 'loss.png')}",
            "",
            f"next: {shell_line(self._next())}",
        ]
        return "\n".join(lines)

    def _duration(self) -> str:
        """How long this process took, and for how many of the clips if it has resumed the run."""
        if not self.seconds:
            return ""
        own = f"; {self.clips - self.resumed_clips:,} of them" if self.resumed_clips else ""
        return f"{own} in {self.seconds:.1f} s{' after resuming' if own else ''}"

    def _next(self) -> list[str]:
        init = ["--init", f"distinit:{self.out}"]
        return ["distinit", "finetune", "--dataset", "DATASET", *init, "--out", "RESULT"]


class LoadReport(Record):
    """Lists every tensor of a student file and of the model: loaded, reinitialised or unused."""

    loaded: tuple[str, ...] = Field(description="in the model, with values from the file")
    reinitialised: tuple[str, ...] = Field(description="in the model, not in the file (new head)")
    unused: tuple[str, ...] = Field(description="in the file, not in the model (old heads)")


class EvaluationResult(Record):
    """``result.json`` of an evaluation: metrics in percent."""

    protocol: str = Field(description="clips that were scored, see EvaluationConfig")
    subset: ScoredSubset = Field("test", description="which videos were scored")
    average: Average = Field(
        "softmax", description="how the clips of a video were averaged, see EvaluationConfig"
    )
    precision: Precision = Field("fp32", description="precision of the forward pass")
    videos: int = Field(
        description="number of scored videos, including those that could not be decoded"
    )
    clips: int = Field(
        description="number of scored clips, including those of videos that could not be decoded"
    )
    per_clip: float = Field(ge=0, le=100, description="top-1 accuracy of single clips, percent")
    top1: float = Field(ge=0, le=100, description="top-1 accuracy of means per video, percent")
    top5: float = Field(ge=0, le=100, description="top-5 accuracy of means per video, percent")
    classes: int = Field(description="number of classes")
    confusion: tuple[tuple[int, ...], ...] = Field(
        description="number of videos [true][predicted], without those that could not be decoded"
    )
    class_top1: tuple[float | None, ...] = Field(
        (),
        description="top-1 accuracy of the videos of each class, percent; those that could not be "
        "decoded count as wrong; null for a class without scored videos",
    )
    failed_videos: tuple[str, ...] = Field(
        description="scored videos that could not be decoded; they count as wrong"
    )

    @model_serializer(mode="wrap")
    def _without_default_subset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``subset: test`` out, so that versions without val videos can read the file."""
        values: dict[str, Any] = handler(self)
        if values.get("subset") == "test":
            del values["subset"]
        return values

    def summary(self) -> str:
        """The metrics, and the number of videos that could not be decoded.

        Top-5 is left out with up to five classes, where it is always 100 %.
        """
        top5 = f"   top-5 {self.top5:.1f}" if self.classes > TOP5_CLASSES else ""
        lines = [
            f"{counted(self.videos, f'{self.subset} video')}, {self.classes} classes, "
            f"{one_line(self.protocol)} ({counted(self.clips, 'clip')}){self._how()}",
            f"  per clip {self.per_clip:.1f}   top-1 {self.top1:.1f}{top5}",
        ]
        if self.failed_videos:
            failed = counted(len(self.failed_videos), f"{self.subset} video")
            share = 100 * len(self.failed_videos) / max(self.videos, 1)
            lines.append(f"  {failed} ({share:.1f} %) could not be decoded: counted as wrong")
        return "\n".join(lines)

    def _how(self) -> str:
        """Settings that differ from the defaults, which are VMZ's."""
        average = {"softmax": "", "logits": ", mean of logits", "max": ", maximum of softmax"}
        return average[self.average] + ("" if self.precision == "fp32" else f", {self.precision}")
