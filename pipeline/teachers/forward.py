"""How frames go through a network: each alone on a CPU, in batches on a GPU."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from distinit.schemas.errors import TeacherError

__all__ = [
    "CPU_BATCH",
    "BatchSize",
    "Forward",
    "FrameByFrame",
    "InBatches",
    "PendingLogits",
    "find_batch_size",
    "seconds_of",
]

type PendingLogits = Callable[[], np.ndarray]
"""Waits for logits float32 [N, classes]."""

type BatchSize = int | Literal["auto"]

CPU_BATCH = 32
"""Frames handed over at a time where they are computed one by one anyway."""

_SMALLEST_BATCH = 8
_LARGEST_BATCH = 1024
_WORTHWHILE = 1.1  # times as many frames a second, or doubling the batch is not worth its memory

_logger = logging.getLogger(__name__)


class Forward(ABC):
    """Runs ``network``: frames uint8 [N, H, W, 3] on the device -> logits float32 [N, classes]."""

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor], batch_size: int) -> None:
        self._network = network
        self.batch_size = batch_size

    @abstractmethod
    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        """Begin; the frames must not change before the answer is there."""


class FrameByFrame(Forward):
    """Every frame alone on one arithmetic thread, several frames side by side.

    torch's sums depend on the number of threads and on the other frames of a batch, so this is
    what makes the bits of an answer independent of both.
    """

    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        frames = torch.split(_tensor(frames_NHWC), 1)
        workers = _single_threads(torch.get_num_threads())
        answers = [workers.submit(self._network, frame) for frame in frames]
        return lambda: np.concatenate([answer.result().numpy() for answer in answers])


class InBatches(Forward):
    """Batches of ``batch_size`` frames, copied from pinned memory beside the one before.

    A batch that does not fit into the device's memory is halved, with a message, and so is
    every later one. On a GPU the bits of an answer depend on the size of its batch.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        batch_size: int,
        *,
        device: torch.device,
        name: str,
    ) -> None:
        super().__init__(network, batch_size)
        self._device = device
        self._name = name
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        answers: list[PendingLogits] = []
        start = 0
        while start < len(frames_NHWC):
            part = frames_NHWC[start : start + self.batch_size]
            answer = self._attempt(part)
            if answer is None:
                self._shrink(len(part))
                continue
            answers.append(answer)
            start += len(part)
        return lambda: np.concatenate([answer() for answer in answers])

    def _attempt(self, frames_NHWC: np.ndarray) -> PendingLogits | None:
        """None if memory does not suffice: the error would keep its frames in memory."""
        try:
            return self._start(_tensor(frames_NHWC))
        except torch.OutOfMemoryError:
            return None

    def _start(self, frames_NHWC: torch.Tensor) -> PendingLogits:
        if self._copies is None:
            logits_NC = self._network(frames_NHWC.to(self._device))
            return lambda: logits_NC.cpu().numpy()
        # torch keeps pinned memory until the copy from it is done, and uses it again then.
        pinned = frames_NHWC.pin_memory()
        with torch.cuda.stream(self._copies):
            on_device = pinned.to(self._device, non_blocking=True)
        compute = torch.cuda.current_stream(self._device)
        compute.wait_stream(self._copies)
        on_device.record_stream(compute)
        logits_NC = self._network(on_device)
        answer_NC = torch.empty(logits_NC.shape, dtype=logits_NC.dtype, pin_memory=True)
        answer_NC.copy_(logits_NC, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(compute)

        def wait() -> np.ndarray:
            done.synchronize()
            # A copy: pinned memory is scarce, and answers wait in queues.
            return answer_NC.numpy().copy()

        return wait

    def _shrink(self, frames: int) -> None:
        if frames == 1:
            raise TeacherError(
                f"the teacher {self._name} does not fit into the memory of {self._device}",
                expected="room for a single frame",
                found="out of memory",
                remedy="free the device, take another one, or precision bf16",
            )
        self.batch_size = frames // 2
        _logger.warning(
            "teacher %s: out of memory on %s with %d frames; going on with %d at a time",
            self._name,
            self._device,
            frames,
            self.batch_size,
        )


def find_batch_size(seconds_for: Callable[[int], float]) -> int:
    """The smallest batch, by doubling, after which a larger one does not pay any more.

    ``seconds_for(size)`` runs one batch and may raise torch.OutOfMemoryError, which ends the
    search as well.
    """
    best, best_rate = _SMALLEST_BATCH, 0.0
    size = _SMALLEST_BATCH
    while size <= _LARGEST_BATCH:
        try:
            rate = size / seconds_for(size)
        except torch.OutOfMemoryError:
            break
        if rate < best_rate * _WORTHWHILE:
            break
        best, best_rate = size, rate
        size *= 2
    return best


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``work`` takes on ``device``, once it has been done there before."""
    work()
    _wait_for(device)
    began = time.perf_counter()
    work()
    _wait_for(device)
    return max(time.perf_counter() - began, 1e-9)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _tensor(frames_NHWC: np.ndarray) -> torch.Tensor:
    # from_numpy warns on read-only memory, which is what decoders hand out.
    return torch.from_numpy(frames_NHWC if frames_NHWC.flags.writeable else frames_NHWC.copy())


@lru_cache(maxsize=1)
def _single_threads(count: int) -> ThreadPoolExecutor:
    """``count`` threads in which torch computes with one thread each, shared by all teachers."""
    pool = ThreadPoolExecutor(count, "teacher", initializer=_compute_with_one_thread)
    all_there = threading.Barrier(count)
    for started in [pool.submit(all_there.wait) for _ in range(count)]:
        started.result()
    # Those threads also changed what threads started later would begin with.
    torch.set_num_threads(count)
    return pool


def _compute_with_one_thread() -> None:
    torch.set_num_threads(1)
    # The first use of the number in a thread takes over whatever is set anywhere by then.
    torch.get_num_threads()
