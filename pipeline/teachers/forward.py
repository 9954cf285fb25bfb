"""Runs frames through a network: one at a time on a CPU, in batches on a GPU."""

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
"""A function that waits for the logits of submitted frames and returns them: fp32 [N, classes]."""

type BatchSize = int | Literal["auto"]

CPU_BATCH = 32
"""Frames per call on a CPU, where the network computes them one by one anyway."""

_SMALLEST_BATCH = 8
_LARGEST_BATCH = 1024
_MIN_SPEEDUP = 1.1  # in frames per second; below it, doubling the batch is not worth its memory

_logger = logging.getLogger(__name__)


class Forward(ABC):
    """Runs ``network``: frames uint8 [N, H, W, 3] on the device -> logits float32 [N, classes]."""

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor], batch_size: int) -> None:
        self._network = network
        self.batch_size = batch_size

    @abstractmethod
    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        """Start computing; the frames must not change until the logits have been returned."""


class FrameByFrame(Forward):
    """Computes each frame as a batch of one in a single thread; several frames run in parallel.

    The order in which torch adds numbers up depends on the number of threads and on the size of
    the batch. This makes every bit of the logits independent of both.
    """

    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        frames = torch.split(_tensor(frames_NHWC), 1)
        workers = _single_threads(torch.get_num_threads())
        pending = [workers.submit(self._network, frame) for frame in frames]
        return lambda: np.concatenate([future.result().numpy() for future in pending])


class InBatches(Forward):
    """Batches of ``batch_size`` frames; each is copied to the GPU while the previous one runs.

    If a batch does not fit into the device's memory, the batch size is halved for it and for all
    later batches, with a warning. On a GPU, the bits of the logits depend on the batch size.
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
        parts: list[PendingLogits] = []
        start = 0
        while start < len(frames_NHWC):
            part = frames_NHWC[start : start + self.batch_size]
            pending = self._attempt(part)
            if pending is None:
                self._shrink(len(part))
                continue
            parts.append(pending)
            start += len(part)
        return lambda: np.concatenate([pending() for pending in parts])

    def _attempt(self, frames_NHWC: np.ndarray) -> PendingLogits | None:
        """None if out of memory: unlike the exception, None does not keep the frames in memory."""
        try:
            return self._start(_tensor(frames_NHWC))
        except torch.OutOfMemoryError:
            return None

    def _start(self, frames_NHWC: torch.Tensor) -> PendingLogits:
        if self._copies is None:
            logits_NC = self._network(frames_NHWC.to(self._device))
            return lambda: logits_NC.cpu().numpy()
        # torch reuses the pinned memory only after the copy from it has finished.
        pinned = frames_NHWC.pin_memory()
        with torch.cuda.stream(self._copies):
            on_device = pinned.to(self._device, non_blocking=True)
        compute = torch.cuda.current_stream(self._device)
        compute.wait_stream(self._copies)
        on_device.record_stream(compute)
        logits_NC = self._network(on_device)
        host_NC = torch.empty(logits_NC.shape, dtype=logits_NC.dtype, pin_memory=True)
        host_NC.copy_(logits_NC, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(compute)

        def wait() -> np.ndarray:
            done.synchronize()
            # A copy, because pinned memory is scarce and logits may wait in queues.
            return host_NC.numpy().copy()

        return wait

    def _shrink(self, frames: int) -> None:
        if frames == 1:
            raise TeacherError(
                f"the teacher {self._name} does not fit into the memory of {self._device}",
                expected="enough memory for one frame",
                found="out of memory",
                remedy="free memory on the device, use another device, or use precision bf16",
            )
        self.batch_size = frames // 2
        _logger.warning(
            "teacher %s: out of memory on %s with %d frames per batch; continuing with %d",
            self._name,
            self._device,
            frames,
            self.batch_size,
        )


def find_batch_size(seconds_for: Callable[[int], float]) -> int:
    """Double the batch size until it no longer increases the speed by 10 %; return the best size.

    ``seconds_for(size)`` runs one batch and returns its seconds. The search also ends if it raises
    torch.OutOfMemoryError.
    """
    best, best_rate = _SMALLEST_BATCH, 0.0
    size = _SMALLEST_BATCH
    while size <= _LARGEST_BATCH:
        try:
            rate = size / seconds_for(size)
        except torch.OutOfMemoryError:
            break
        if rate < best_rate * _MIN_SPEEDUP:
            break
        best, best_rate = size, rate
        size *= 2
    return best


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``work`` takes on ``device``, after one run to warm up."""
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
    # from_numpy warns about read-only memory, and decoded frames are read-only.
    return torch.from_numpy(frames_NHWC if frames_NHWC.flags.writeable else frames_NHWC.copy())


@lru_cache(maxsize=1)
def _single_threads(count: int) -> ThreadPoolExecutor:
    """A pool of ``count`` threads, in each of which torch is single-threaded; for all teachers."""
    pool = ThreadPoolExecutor(count, "teacher", initializer=_compute_with_one_thread)
    all_started = threading.Barrier(count)
    for started in [pool.submit(all_started.wait) for _ in range(count)]:
        started.result()
    # The threads of the pool also changed the default for threads that start later.
    torch.set_num_threads(count)
    return pool


def _compute_with_one_thread() -> None:
    torch.set_num_threads(1)
    # torch reads the process-wide setting when a thread first uses it: fix it in this thread now.
    torch.get_num_threads()
