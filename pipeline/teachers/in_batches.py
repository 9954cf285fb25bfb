"""Runs frames through a network on a GPU, in batches that may hold frames of several videos."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from distinit.pipeline.teachers.batch_device import BatchDevice
from distinit.pipeline.teachers.forward import Forward, PendingLogits, tensor_of
from distinit.schemas.errors import TeacherError

__all__ = ["InBatches"]

_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Part:
    """Frames of one ``submit``: those that wait for a batch, then the logits of each batch."""

    waiting_NCHW: torch.Tensor
    logits: list[PendingLogits] = field(default_factory=list)

    @property
    def frame_count(self) -> int:
        """Frames that wait for a batch."""
        return len(self.waiting_NCHW)


class InBatches(Forward):
    """Batches of ``batch_size`` frames; each is copied to the GPU while the previous one runs.

    Frames are resized and cropped as they are submitted, so that frames of any size share a batch.
    A batch starts once ``batch_size`` frames wait, or as soon as someone asks for the logits of one
    of them; then it is padded with zeros. So all batches have one size, and the device uses the
    same kernels for each frame, however the videos are mixed.

    If a batch does not fit into the device's memory, the batch size is halved for it and for all
    later batches, with a warning. On a GPU, the bits of the logits depend on the batch size.
    ``submit`` and what it returns may be called by several threads.
    """

    holds_frames = False

    def __init__(
        self,
        prepare: Callable[[torch.Tensor], torch.Tensor],
        network: Callable[[torch.Tensor], torch.Tensor],
        batch_size: int,
        *,
        device: BatchDevice,
        name: str,
    ) -> None:
        """Compute nothing yet.

        ``prepare``: frames uint8 [N, H, W, 3] on the device -> the network's input [N, ...].
        ``network``: its input -> logits float32 [N, classes].
        """
        super().__init__(batch_size)
        self._prepare = prepare
        self._network = network
        self._device = device
        self._name = name
        self._lock = threading.Lock()
        self._parts: deque[_Part] = deque()  # with frames that wait, oldest first

    @property
    def frames_ahead(self) -> int:
        # One batch runs, one waits on the device, one is being collected.
        return 3 * self.batch_size

    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        with self._lock:
            part = _Part(self._prepared(tensor_of(frames_NHWC)))
            self._parts.append(part)
            while self._waiting_count() >= self.batch_size:
                self._launch()
        return lambda: self._logits_of(part)

    def _logits_of(self, part: _Part) -> np.ndarray:
        with self._lock:
            while part.frame_count:
                self._launch()
        return np.concatenate([logits() for logits in part.logits])

    def _waiting_count(self) -> int:
        return sum(part.frame_count for part in self._parts)

    def _prepared(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        """The network's input; in halves if the device has no memory for all frames at once."""
        try:
            return self._prepare(self._device.copy(frames_NHWC))
        except torch.OutOfMemoryError:
            half = len(frames_NHWC) // 2
        if half == 0:
            raise self._too_large()
        return torch.cat([self._prepared(frames_NHWC[:half]), self._prepared(frames_NHWC[half:])])

    def _launch(self) -> None:
        """Start one batch of the oldest frames that wait."""
        while True:
            batch_NCHW = self._padded(self._oldest(self.batch_size))
            pending = self._attempt(batch_NCHW)
            if pending is not None:
                break
            self._shrink(len(batch_NCHW))
        self._hand_out(pending)

    def _oldest(self, count: int) -> torch.Tensor:
        taken: list[torch.Tensor] = []
        for part in self._parts:
            taken.append(part.waiting_NCHW[:count])
            count -= len(taken[-1])
            if count == 0:
                break
        return torch.cat(taken)

    def _padded(self, input_NCHW: torch.Tensor) -> torch.Tensor:
        missing = self.batch_size - len(input_NCHW)
        if missing == 0:
            return input_NCHW
        zeros = input_NCHW.new_zeros((missing, *input_NCHW.shape[1:]))
        padded = torch.cat([input_NCHW, zeros])
        return padded.contiguous(memory_format=torch.channels_last) if padded.ndim == 4 else padded

    def _attempt(self, input_NCHW: torch.Tensor) -> PendingLogits | None:
        """None if out of memory: unlike the exception, None does not keep tensors in memory."""
        try:
            return self._device.start(self._network, input_NCHW)
        except torch.OutOfMemoryError:
            return None

    def _hand_out(self, pending: PendingLogits) -> None:
        """Give each part its rows of the batch that was started."""
        start = 0
        while self._parts and start < self.batch_size:
            part = self._parts[0]
            stop = min(start + part.frame_count, self.batch_size)
            part.logits.append(partial(_rows_of, pending, slice(start, stop)))
            part.waiting_NCHW = part.waiting_NCHW[stop - start :]
            start = stop
            if part.frame_count == 0:
                self._parts.popleft()

    def _shrink(self, frames: int) -> None:
        if frames == 1:
            raise self._too_large()
        self.batch_size = frames // 2
        _logger.warning(
            "teacher %s: out of memory with %d frames per batch; continuing with %d",
            self._name,
            frames,
            self.batch_size,
        )

    def _too_large(self) -> TeacherError:
        return TeacherError(
            f"the teacher {self._name} does not fit into the memory of its device",
            expected="enough memory for one frame",
            found="out of memory",
            remedy="free memory on the device, use another device, or use precision bf16",
        )


def _rows_of(pending: PendingLogits, rows: slice) -> np.ndarray:
    # A copy, because pinned memory is scarce and logits may wait in queues.
    return pending()[rows].copy()
