"""A teacher: frames in, logits out, the same every time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import torch

from distinit.pipeline.teachers.network import Network
from distinit.pipeline.teachers.preprocess import preprocess, view_for
from distinit.pipeline.video.views import View
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import TeacherIdentity

__all__ = ["NetworkTeacher", "Precision", "Teacher", "frames_or_error"]

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Teacher(ABC):
    """A frozen image model. ``id`` names its folder, ``identity`` all that shapes its answers."""

    def __init__(self, teacher_id: str, identity: TeacherIdentity, device: str) -> None:
        self.id = teacher_id
        self.identity = identity
        self.device = device

    @property
    @abstractmethod
    def view(self) -> View:
        """The picture of each frame that ``forward`` wants."""

    @abstractmethod
    def forward(self, frames_NHWC: np.ndarray) -> np.ndarray:
        """Logits or features float32 [N, classes] of RGB frames uint8 [N, H, W, 3].

        Deterministic. Raises TeacherError for frames of another shape or dtype, and for
        answers that are not finite.
        """


class NetworkTeacher(Teacher):
    """A teacher that is a torch module.

    On a CPU every frame goes through alone, on one arithmetic thread, and several frames run
    side by side: torch's sums depend on the thread count and on the other frames of a batch,
    so this is what makes a cache's digest independent of both. On a GPU a batch runs as it is.
    """

    def __init__(
        self, teacher_id: str, network: Network, *, device: str, precision: Precision = "fp32"
    ) -> None:
        super().__init__(teacher_id, network.identity, device)
        self.precision = precision
        self._device = torch.device(device)
        module = network.module.eval().requires_grad_(False)
        self._module = module.to(self._device).to(memory_format=torch.channels_last)
        self._check_output()

    @property
    def view(self) -> View:
        return view_for(self.identity.preprocessing)

    def forward(self, frames_NHWC: np.ndarray) -> np.ndarray:
        frames_or_error(frames_NHWC)
        if len(frames_NHWC) == 0:
            return np.zeros((0, self.identity.classes), dtype=np.float32)
        # from_numpy warns on read-only memory, which is what decoders hand out.
        writable = frames_NHWC if frames_NHWC.flags.writeable else frames_NHWC.copy()
        frames = torch.from_numpy(writable)
        on_cpu = self._device.type == "cpu"
        logits_NC = self._frame_by_frame(frames) if on_cpu else self._batch(frames)
        finite_or_error(logits_NC, self)
        return logits_NC

    def _frame_by_frame(self, frames_NHWC: torch.Tensor) -> np.ndarray:
        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(threads, initializer=_one_arithmetic_thread) as pool:
                return np.concatenate(list(pool.map(self._batch, torch.split(frames_NHWC, 1))))
        finally:
            # The pool's threads also changed what threads started later would begin with.
            torch.set_num_threads(threads)

    def _batch(self, frames_NHWC: torch.Tensor) -> np.ndarray:
        input_NCHW = preprocess(frames_NHWC.to(self._device), self.identity.preprocessing)
        return self._run(input_NCHW).cpu().numpy()

    def _run(self, input_NCHW: torch.Tensor) -> torch.Tensor:
        kind = self._device.type
        autocast = torch.autocast(
            kind, dtype=_DTYPES[self.precision], enabled=self.precision != "fp32"
        )
        with torch.inference_mode(), _repeatable_kernels(kind), autocast:
            output: torch.Tensor = self._module(input_NCHW)
        return output.float()

    def _check_output(self) -> None:
        side = self.identity.preprocessing.crop_size
        shape = tuple(self._run(torch.zeros(1, 3, side, side, device=self._device)).shape)
        if shape != (1, self.identity.classes):
            raise TeacherError(
                f"the network {self.identity.architecture} does not answer as announced",
                expected=f"one row of {self.identity.classes} values a frame",
                found=f"shape {shape} for one frame",
                remedy="give the number of classes that the network really has",
            )


def frames_or_error(frames_NHWC: np.ndarray) -> None:
    """Raise TeacherError unless ``frames_NHWC`` is uint8 [N, H, W, 3]."""
    if frames_NHWC.dtype != np.uint8 or frames_NHWC.ndim != 4 or frames_NHWC.shape[-1] != 3:
        raise TeacherError(
            "a teacher was given something that is not a block of RGB frames",
            expected="uint8 [N, height, width, 3]",
            found=f"{frames_NHWC.dtype} {list(frames_NHWC.shape)}",
            remedy="pass a view of a FrameBlock",
        )


def finite_or_error(logits_NC: np.ndarray, teacher: Teacher) -> None:
    """Raise TeacherError if a teacher said NaN or infinity: it must not reach a cache."""
    bad = int((~np.isfinite(logits_NC)).any(axis=1).sum())
    if bad:
        raise TeacherError(
            f"the teacher {teacher.id} gave values that are not finite",
            expected="finite logits for every frame",
            found=f"{bad} of {len(logits_NC)} frames with NaN or infinity",
            remedy="check the weights; with precision fp16, take bf16 or fp32",
        )


def _one_arithmetic_thread() -> None:
    torch.set_num_threads(1)


def _repeatable_kernels(device_type: str) -> AbstractContextManager[None]:
    # TF32 would make "fp32" mean 10 bits of mantissa; benchmark picks kernels by timing.
    if device_type == "cpu":
        return nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
