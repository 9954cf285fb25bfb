"""The teacher interface, and teachers that are torch modules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from distinit.pipeline.teachers.batch_device import batch_device
from distinit.pipeline.teachers.forward import (
    CPU_BATCH,
    BatchSize,
    Forward,
    FrameByFrame,
    PendingLogits,
    find_batch_size,
    seconds_of,
)
from distinit.pipeline.teachers.in_batches import InBatches
from distinit.pipeline.teachers.network import Network
from distinit.pipeline.teachers.preprocess import preprocess, view_for
from distinit.pipeline.teachers.probe import probe_frame, probe_record
from distinit.pipeline.teachers.variations import (
    Variation,
    cpu_variations,
    gpu_variations,
    pixels_rounded,
)
from distinit.pipeline.video.views import View
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import TeacherIdentity, WeightsRecipe

__all__ = ["NetworkTeacher", "Precision", "Teacher", "default_precision", "frames_or_error"]

Precision = Literal["fp32", "bf16", "fp16"]

_FIRST_WITH_BF16 = 8  # CUDA compute capability of an A100

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Teacher(ABC):
    """A frozen image model that computes logits or features per frame.

    ``id`` is the name of its folder in a cache; ``identity`` holds everything that determines its
    output. ``recipe``: how its weights were trained, if that is known. ``precision``: in which its
    logits are computed.
    """

    precision: Precision = "fp32"

    def __init__(
        self,
        teacher_id: str,
        identity: TeacherIdentity,
        device: str,
        recipe: WeightsRecipe | None = None,
    ) -> None:
        self.id = teacher_id
        self.identity = identity
        self.device = device
        self.recipe = recipe

    @property
    @abstractmethod
    def view(self) -> View:
        """The size at which ``forward`` expects each frame."""

    @property
    def batch_size(self) -> int:
        """Frames per call that work best; it may shrink if memory runs out."""
        return CPU_BATCH

    @property
    def frames_ahead(self) -> int:
        """Frames to submit before the logits of the first are awaited; more would only wait."""
        return 2 * self.batch_size

    @property
    def holds_frames(self) -> bool:
        """Whether submitted frames stay in host memory until their logits are computed."""
        return True

    @abstractmethod
    def forward(self, frames_NHWC: np.ndarray) -> np.ndarray:
        """Logits or features float32 [N, classes] of RGB frames uint8 [N, H, W, 3].

        Deterministic. Raises TeacherError for frames of another shape or dtype, and for
        outputs that are not finite.
        """

    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        """As ``forward``, but the logits may be computed while the caller does something else.

        The frames must not change until the returned function has been called. The caller checks
        that the logits are finite, because it knows which frames they belong to.
        """
        logits_NC = self.forward(frames_NHWC)
        return lambda: logits_NC

    def submit_exact(self, frames_NHWC: np.ndarray) -> PendingLogits | None:
        """As ``submit``, in fp32; None if that is what ``submit`` computes anyway."""
        return None

    def variations(self) -> tuple[Variation, ...]:
        """Other ways to compute the same outputs, to measure how much they differ by rounding."""
        rounded = Variation(
            "1 in 1,000 pixel values rounded differently",
            lambda frames: self.forward(pixels_rounded(frames)),
        )
        return (rounded,)


class NetworkTeacher(Teacher):
    """A teacher that is a torch module.

    On a CPU its outputs are bitwise equal for any batch size and number of threads
    (``FrameByFrame``), and so is the digest of a cache. On a GPU (``InBatches``) they are only
    reproducible for the same batches on the same GPU model with the same software.
    """

    def __init__(
        self,
        teacher_id: str,
        network: Network,
        *,
        device: str,
        precision: Precision | Literal["auto"] = "fp32",
        batch_size: BatchSize = "auto",
        compiled: bool = False,
    ) -> None:
        """``compiled``: use torch.compile on a GPU. It would change the outputs on a CPU.

        Raises TeacherError if the network's output for the probe picture is not finite or does
        not have the expected shape.
        """
        super().__init__(teacher_id, network.identity, device, network.recipe)
        self._device = torch.device(device)
        self.precision = default_precision(self._device) if precision == "auto" else precision
        module = network.module.eval().requires_grad_(False)
        self._module = module.to(self._device).to(memory_format=torch.channels_last)
        self.identity = self._probed()
        if self._device.type == "cpu":
            size = CPU_BATCH if batch_size == "auto" else batch_size
            self._forward: Forward = FrameByFrame(self._logits, size)
            return
        if compiled:
            self._module.compile()
        size = find_batch_size(self._seconds_for) if batch_size == "auto" else batch_size
        self._forward = InBatches(
            self._prepare, self._network, size, device=batch_device(self._device), name=teacher_id
        )

    @property
    def frames_ahead(self) -> int:
        return self._forward.frames_ahead

    @property
    def holds_frames(self) -> bool:
        return self._forward.holds_frames

    @property
    def view(self) -> View:
        return view_for(self.identity.preprocessing)

    @property
    def batch_size(self) -> int:
        return self._forward.batch_size

    def forward(self, frames_NHWC: np.ndarray) -> np.ndarray:
        logits_NC = self.submit(frames_NHWC)()
        finite_or_error(logits_NC, self)
        return logits_NC

    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        frames_or_error(frames_NHWC)
        if len(frames_NHWC) == 0:
            return lambda: np.zeros((0, self.identity.classes), dtype=np.float32)
        return self._forward.submit(frames_NHWC)

    def submit_exact(self, frames_NHWC: np.ndarray) -> PendingLogits | None:
        if self.precision == "fp32":
            return None
        return self._exact.submit(frames_NHWC)

    def variations(self) -> tuple[Variation, ...]:
        kind = self._device.type

        def prepare(frames_NHWC: torch.Tensor) -> torch.Tensor:
            return self._prepare(frames_NHWC.to(self._device))

        def run(precision: Precision) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda input_NCHW: self._run(input_NCHW, precision).float()

        found = super().variations()
        others = cpu_variations if kind == "cpu" else gpu_variations
        found += others(prepare, run(self.precision))
        if self.precision != "fp32":
            found += (Variation("fp32", lambda frames: self._exact.submit(frames)()),)
        return found

    @cached_property
    def _exact(self) -> Forward:
        return self._in_fp32(lambda input_NCHW: self._run(input_NCHW, "fp32").float(), CPU_BATCH)

    def _in_fp32(self, network: Callable[[torch.Tensor], torch.Tensor], batch_size: int) -> Forward:
        """A forward pass for few frames, next to the one of this teacher's precision."""
        if self._device.type == "cpu":
            return FrameByFrame(lambda frames: network(self._prepare(frames)), batch_size)
        device = batch_device(self._device)
        return InBatches(self._prepare, network, batch_size, device=device, name=self.id)

    def _prepare(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        return preprocess(frames_NHWC, self.identity.preprocessing)

    def _network(self, input_NCHW: torch.Tensor) -> torch.Tensor:
        return self._run(input_NCHW, self.precision).float()

    def _logits(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        return self._network(self._prepare(frames_NHWC))

    def _run(self, input_NCHW: torch.Tensor, precision: Precision) -> torch.Tensor:
        kind = self._device.type
        autocast = torch.autocast(kind, dtype=_DTYPES[precision], enabled=precision != "fp32")
        with torch.inference_mode(), _repeatable_kernels(kind), autocast:
            output: torch.Tensor = self._module(input_NCHW)
        return output

    def _seconds_for(self, frames: int) -> float:
        """Seconds for one batch of black frames on the device."""
        side = self.identity.preprocessing.crop_size
        input_NCHW = torch.zeros(frames, 3, side, side, device=self._device)
        return seconds_of(
            lambda: self._run(
                input_NCHW.contiguous(memory_format=torch.channels_last), self.precision
            ),
            self._device,
        )

    def _probed(self) -> TeacherIdentity:
        """The identity with the output for the probe picture, always in fp32 and not compiled.

        Raises TeacherError if the output is not finite or not of shape [1, classes].
        """
        dtypes = {tensor.dtype for tensor in self._module.state_dict().values()}

        def network(input_NCHW: torch.Tensor) -> torch.Tensor:
            output = self._run(input_NCHW, "fp32")
            dtypes.add(output.dtype)
            return output.float()

        forward = self._in_fp32(network, 1)
        output_NC = forward.submit(probe_frame(self.view)[None])()
        if output_NC.shape != (1, self.identity.classes):
            raise TeacherError(
                f"the output of the network {self.identity.architecture} has the wrong shape",
                expected=f"{self.identity.classes} values per frame",
                found=f"shape {output_NC.shape} for one frame",
                remedy="set the number of classes to the width of the network's output",
            )
        half = not dtypes.isdisjoint({torch.float16, torch.bfloat16})
        probe = probe_record(output_NC[0], self.identity.architecture, half=half)
        return self.identity.model_copy(update={"probe": probe})


def frames_or_error(frames_NHWC: np.ndarray) -> None:
    """Raise TeacherError unless ``frames_NHWC`` is uint8 [N, H, W, 3]."""
    if frames_NHWC.dtype != np.uint8 or frames_NHWC.ndim != 4 or frames_NHWC.shape[-1] != 3:
        raise TeacherError(
            "the input of a teacher is not a block of RGB frames",
            expected="uint8 [N, height, width, 3]",
            found=f"{frames_NHWC.dtype} {list(frames_NHWC.shape)}",
            remedy="pass a view of a FrameBlock",
        )


def finite_or_error(logits_NC: np.ndarray, teacher: Teacher) -> None:
    """Raise TeacherError if an output of a teacher is NaN or infinite: no cache may contain it."""
    bad = int((~np.isfinite(logits_NC)).any(axis=1).sum())
    if bad:
        raise TeacherError(
            f"the teacher {teacher.id} computed values that are not finite",
            expected="finite logits for every frame",
            found=f"{bad} of {len(logits_NC)} frames with NaN or infinity",
            remedy="check the weights; if the precision is fp16, try bf16 or fp32",
        )


def _repeatable_kernels(device_type: str) -> AbstractContextManager[None]:
    # With TF32, "fp32" would have only 10 bits of mantissa; benchmark chooses kernels by timing.
    if device_type == "cpu":
        return nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def default_precision(device: torch.device) -> Precision:
    """bf16 on GPUs that compute in it, else fp32.

    A GPU that is not in this machine is assumed to have bf16, as all since 2020.
    """
    if device.type != "cuda":
        return "fp32"
    if not torch.cuda.is_available():
        return "bf16"
    major, _ = torch.cuda.get_device_capability(device)
    return "bf16" if major >= _FIRST_WITH_BF16 else "fp32"
