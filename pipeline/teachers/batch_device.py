"""Where batches of a teacher run: how frames get there, and how logits come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from distinit.pipeline.teachers.forward import PendingLogits

__all__ = ["BatchDevice", "CudaDevice", "HostDevice", "batch_device"]

type Network = Callable[[torch.Tensor], torch.Tensor]


class BatchDevice(Protocol):
    """Runs the batches of one teacher. Calls come from one thread at a time."""

    def copy(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        """Frames on the device; may return before they are there."""

    def start(self, network: Network, input_NCHW: torch.Tensor) -> PendingLogits:
        """Start ``network`` on its input. Raises torch.OutOfMemoryError."""


class HostDevice:
    """The CPU, where ``start`` computes at once; for tests, and devices that are not CUDA."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def copy(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        """See BatchDevice."""
        return frames_NHWC.to(self._device)

    def start(self, network: Network, input_NCHW: torch.Tensor) -> PendingLogits:
        """See BatchDevice."""
        logits_NC = network(input_NCHW)
        return lambda: logits_NC.cpu().numpy()


class CudaDevice:
    """A GPU: frames are copied on a stream of their own while earlier batches run."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        """See BatchDevice."""
        # torch reuses the pinned memory only after the copy from it has finished.
        pinned = frames_NHWC.pin_memory()
        with torch.cuda.stream(self._copies):
            on_device = pinned.to(self._device, non_blocking=True)
        compute = torch.cuda.current_stream(self._device)
        compute.wait_stream(self._copies)
        on_device.record_stream(compute)
        return on_device

    def start(self, network: Network, input_NCHW: torch.Tensor) -> PendingLogits:
        """See BatchDevice."""
        logits_NC = network(input_NCHW)
        host_NC = torch.empty(logits_NC.shape, dtype=logits_NC.dtype, pin_memory=True)
        host_NC.copy_(logits_NC, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self._device))

        def wait() -> np.ndarray:
            done.synchronize()
            return host_NC.numpy()

        return wait


def batch_device(device: torch.device) -> BatchDevice:
    """The BatchDevice for a torch device."""
    return CudaDevice(device) if device.type == "cuda" else HostDevice(device)
