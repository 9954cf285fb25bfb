"""A trained student, ready to be used on any clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from distinit.pipeline.distillation.normalization import Normalization
from distinit.pipeline.distillation.normalization_file import read_normalizations
from distinit.pipeline.evaluation.clip_batches import student_input
from distinit.pipeline.students.heads import Student
from distinit.pipeline.students.io import NORMALIZATION_NAME, read_student, student_path
from distinit.schemas.errors import CheckpointError, ConfigError
from distinit.schemas.run import HeadRecord, StudentRecord
from distinit.schemas.training import ClipConfig
from distinit.schemas.wording import counted, shown

__all__ = ["TrainedStudent", "load_student"]

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class TrainedStudent:
    """A network with its weights, and the clips that it was trained on."""

    network: Student
    """In evaluation mode, on the CPU. Clips [B, C, T, H, W] -> {head name: logits [B, outputs]}."""
    record: StudentRecord
    """What ``student.json`` says: the network, its clips, its heads, how it was trained."""
    normalizations: Mapping[str, Normalization] = field(default_factory=dict)
    """Head -> how the features that it learnt from were normalized; heads of others are left out.
    Empty if ``normalization.safetensors`` is missing."""

    @property
    def clip(self) -> ClipConfig:
        """The input: number of frames, size in pixels, mean and std per channel."""
        return self.record.clip

    @property
    def label_names(self) -> tuple[str, ...]:
        """Classes of a finetuned student, in the order of its logits; empty if it was distilled."""
        return self.record.label_names

    def input_of(
        self, frames_THWC: NDArray[np.uint8], *, size: tuple[int, int] | None = None
    ) -> Tensor:
        """The frames of one clip as the network reads them: float32 [1, C, T, crop, crop].

        Crops the centre and normalises. The student expects frames of the size of the frame store
        that it was trained with. ``size``: (height, width) to scale other frames to, in pixels;
        (128, 171) is the default size of a frame store.

        Raises ConfigError for another number of frames or channels, another type, or frames that
        are smaller than the crop.
        """
        channels = self.record.student.in_channels
        shape = frames_THWC.shape
        is_clip = len(shape) == 4 and (shape[0], shape[3]) == (self.clip.frames, channels)
        if not is_clip or frames_THWC.dtype != np.uint8:
            raise self._not_a_clip(frames_THWC)
        pixels_TCHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
        if size is not None:
            pixels_TCHW = _scaled(pixels_TCHW, size)
        crop, (height, width) = self.clip.crop, pixels_TCHW.shape[2:]
        if min(height, width) < crop:
            raise self._not_a_clip(frames_THWC)
        top, left = (height - crop) // 2, (width - crop) // 2
        cropped_TCHW = pixels_TCHW[:, :, top : top + crop, left : left + crop]
        return student_input(cropped_TCHW[None], self.clip, _CPU)

    def _not_a_clip(self, frames: NDArray[np.uint8]) -> ConfigError:
        clip, channels = self.clip, self.record.student.in_channels
        return ConfigError(
            "the frames are not a clip of this student",
            expected=f"uint8 [{clip.frames}, height, width, {channels}], with at least "
            f"{clip.crop} x {clip.crop} pixels",
            found=f"{frames.dtype} {list(frames.shape)}",
            remedy="take as many consecutive frames as student.clip.frames; `size` scales them",
        )

    @torch.no_grad()
    def features(self, clip_BCTHW: Tensor) -> Tensor:
        """Clips as ``input_of`` gives them -> pooled features [B, D], which the heads read."""
        features_BD: Tensor = self.network.backbone(clip_BCTHW)
        return features_BD

    @torch.no_grad()
    def teacher_outputs(self, clip_BCTHW: Tensor) -> dict[str, Tensor]:
        """Clips as ``input_of`` gives them -> {head: prediction of its teacher's output, [B, D]}.

        Like what the cache stores: logits, or features whose normalization is undone. fp32, on the
        CPU. Raises CheckpointError without the ``normalization.safetensors`` that this needs.
        """
        outputs = {name: out.float().cpu() for name, out in self.network(clip_BCTHW).items()}
        for head in self.record.heads:
            if head.normalize is not None:
                outputs[head.name] = self._normalization(head).undo(outputs[head.name])
        return outputs

    def _normalization(self, head: HeadRecord) -> Normalization:
        found = self.normalizations.get(head.name)
        if found is None or found.channels * (head.cells or 1) != head.outputs:
            raise CheckpointError(
                f"the normalization of head {shown(head.name)} is not known",
                expected=f"{NORMALIZATION_NAME} next to the student, with "
                f"{counted(head.outputs // (head.cells or 1), 'channel')} for this head",
                found="no tensors for it" if found is None else counted(found.channels, "channel"),
                remedy=f"copy {NORMALIZATION_NAME} from the run folder, and load the student again",
            )
        return found


def load_student(run: str | Path, *, plugin: str | None = None) -> TrainedStudent:
    """Load the student of a distill or finetune run, or of a ``student.safetensors``.

    ``student.json`` must lie next to the file; so must ``normalization.safetensors``, if the run
    has one, for ``teacher_outputs``. ``plugin``: the name of the student plugin that may be
    imported, ``plugin:module:function``; a plugin that only the run names is never imported.

    Raises CheckpointError if a file is missing or damaged, or if the files do not belong together;
    RunMismatchError if ``normalization.safetensors`` has other tensors than it should;
    ConfigError if the student is a plugin other than ``plugin``.
    """
    network, record = read_student(Path(run), plugin)
    folder = student_path(Path(run)).parent
    is_normalized = any(head.normalize is not None for head in record.heads)
    if not is_normalized or not (folder / NORMALIZATION_NAME).is_file():
        return TrainedStudent(network.eval(), record)
    return TrainedStudent(network.eval(), record, read_normalizations(folder))


def _scaled(pixels_TCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [T, C, *size], bilinear, antialiased."""
    scaled = interpolate(pixels_TCHW.float(), size, mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)
