"""Other ways to compute the same outputs of a teacher, whose differences are noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distinit.pipeline.teachers.forward import tensor_of

__all__ = ["Variation", "cpu_variations", "gpu_variations", "pixels_rounded"]

type Run = Callable[[torch.Tensor], torch.Tensor]
"""A network's input [N, 3, H, W] on its device -> its outputs [N, C] in fp32."""

_BATCH = 8
_OTHER_THREADS = 2
_ONE_IN = 1000  # values that another resize or decoder rounds to the next level, at most


@dataclass(frozen=True, slots=True)
class Variation:
    """``outputs``: RGB frames of one size, uint8 [N, H, W, 3] -> fp32 [N, C]."""

    name: str
    outputs: Callable[[np.ndarray], np.ndarray]


def cpu_variations(prepare: Run, run: Run) -> tuple[Variation, ...]:
    """Batches, threads, memory layouts and kernels that a CPU may use."""

    def batched(frames_NHWC: np.ndarray) -> np.ndarray:
        return _in_batches(prepare, run, frames_NHWC, _BATCH)

    def threaded(frames_NHWC: np.ndarray) -> np.ndarray:
        with _threads(_OTHER_THREADS):
            return _in_batches(prepare, run, frames_NHWC, 1)

    def contiguous(frames_NHWC: np.ndarray) -> np.ndarray:
        return _in_batches(lambda x: prepare(x).contiguous(), run, frames_NHWC, _BATCH)

    def without_onednn(frames_NHWC: np.ndarray) -> np.ndarray:
        with _onednn_disabled():
            return _in_batches(prepare, run, frames_NHWC, _BATCH)

    return (
        Variation(f"batches of {_BATCH}", batched),
        Variation(f"{_OTHER_THREADS} threads", threaded),
        Variation("another memory layout", contiguous),
        Variation("without oneDNN", without_onednn),
    )


def gpu_variations(prepare: Run, run: Run) -> tuple[Variation, ...]:
    """Batch sizes, for which a GPU uses other kernels."""

    def of_size(size: int) -> Variation:
        return Variation(
            f"batches of {size}", lambda frames: _in_batches(prepare, run, frames, size)
        )

    return (of_size(1), of_size(_BATCH))


def pixels_rounded(frames_NHWC: np.ndarray) -> np.ndarray:
    """The frames with one in 1,000 values one level lower or higher, always the same ones."""
    rng = np.random.default_rng(0)
    changed = frames_NHWC.astype(np.int16)
    flat = changed.reshape(-1)
    place_M = rng.choice(len(flat), max(len(flat) // _ONE_IN, 1), replace=False)
    flat[place_M] += rng.choice(np.array([-1, 1], np.int16), len(place_M))
    return changed.clip(0, 255).astype(np.uint8)


def _in_batches(prepare: Run, run: Run, frames_NHWC: np.ndarray, size: int) -> np.ndarray:
    parts = [
        run(prepare(tensor_of(frames_NHWC[start : start + size]))).cpu().numpy()
        for start in range(0, len(frames_NHWC), size)
    ]
    return np.concatenate(parts)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _onednn_disabled() -> Iterator[None]:
    # Not ``flags``: it also sets a flag for Intel's GPUs, with a warning where there are none.
    switch: Any = torch.backends.mkldnn
    before = switch.enabled
    switch.enabled = False
    try:
        yield
    finally:
        switch.enabled = before
