"""Runs frames through a network: one at a time on a CPU, in batches on a GPU."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

__all__ = [
    "CPU_BATCH",
    "BatchSize",
    "Forward",
    "FrameByFrame",
    "PendingLogits",
    "find_batch_size",
    "seconds_of",
    "tensor_of",
]

type PendingLogits = Callable[[], np.ndarray]
"""A function that waits for the logits of submitted frames and returns them: fp32 [N, classes]."""

type BatchSize = int | Literal["auto"]

CPU_BATCH = 32
"""Frames per call on a CPU, where the network computes them one by one anyway."""

_SMALLEST_BATCH = 8
_LARGEST_BATCH = 1024
_MIN_SPEEDUP = 1.1  # in frames per second; below it, doubling the batch is not worth its memory


class Forward(ABC):
    """Turns frames uint8 [N, H, W, 3] into logits float32 [N, classes].

    ``batch_size``: frames per call that work best. ``frames_ahead``: frames to submit before the
    logits of the first are awaited. ``holds_frames``: submitted frames stay in host memory until
    their logits have been computed.
    """

    holds_frames = True

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    @property
    def frames_ahead(self) -> int:
        return 2 * self.batch_size

    @abstractmethod
    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        """Start computing; the frames must not change until the logits have been returned."""


class FrameByFrame(Forward):
    """Computes each frame as a batch of one in a single thread; several frames run in parallel.

    The order in which torch adds numbers up depends on the number of threads and on the size of
    the batch. This makes every bit of the logits independent of both.
    """

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor], batch_size: int) -> None:
        """``network``: frames uint8 [1, H, W, 3] -> logits float32 [1, classes]."""
        super().__init__(batch_size)
        self._network = network

    def submit(self, frames_NHWC: np.ndarray) -> PendingLogits:
        frames = torch.split(tensor_of(frames_NHWC), 1)
        workers = _single_threads(torch.get_num_threads())
        pending = [workers.submit(self._network, frame) for frame in frames]
        return lambda: np.concatenate([future.result().numpy() for future in pending])


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


def tensor_of(frames_NHWC: np.ndarray) -> torch.Tensor:
    """The same memory as a tensor, where torch allows it."""
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
