"""The result of ``distinit finetune``: how a run was trained, and its metrics."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.run import EvaluationResult, LoadReport
from distinit.schemas.training import OptimizerConfig
from distinit.schemas.wording import counted, one_line

__all__ = ["FinetuneResult"]

_SHOWN = 5


class FinetuneResult(Record):
    """The files of a finetune run, how it was trained, and its metrics."""

    run: str = Field(description="run directory")
    student: str = Field(description="path of student.safetensors")
    network: str = Field(description="name of the student's network")
    init: str = Field(description="what the training started from")
    train_layers: str = Field(description="layers that were trained: all or head")
    optimizer: OptimizerConfig = Field(
        description="as configured; the default is the paper's for this init"
    )
    load: LoadReport = Field(description="which tensors the initial weights were loaded into")
    training_videos: int = Field(description="videos that were trained on")
    left_out: tuple[str, ...] = Field(description="training videos that could not be decoded")
    bottleneck: str = Field("", description="the largest part of a step, and how to reduce it")
    evaluation: EvaluationResult = Field(description="result on the test videos")

    def summary(self) -> str:
        """The training, the metrics, and the path of the student."""
        o = self.optimizer
        lines = [
            f"{one_line(self.network)} from {one_line(self.init)} "
            f"({one_line(self.train_layers)} layers), "
            f"{counted(self.training_videos, 'training video')}",
            f"  LR {o.learning_rate:g}, {o.schedule}, x{o.gamma:g} every {_epochs(o.step_epochs)}, "
            f"{counted(o.epochs, 'epoch')}, weight decay {o.weight_decay:g}",
        ]
        if self.bottleneck:
            lines.append(f"  {self.bottleneck}")
        if self.left_out:
            lines.append(
                f"  {counted(len(self.left_out), 'training video')} left out, could not be "
                "decoded: " + ", ".join(one_line(path) for path in self.left_out[:_SHOWN])
            )
        return "\n".join(
            [*lines, "", self.evaluation.summary(), "", f"student  {one_line(self.student)}"]
        )


def _epochs(count: int) -> str:
    return "epoch" if count == 1 else f"{count} epochs"
