"""Prepares batches for the student: decodes them, moves them to the device, normalises them.

Loader threads do as much of this as possible. On a CPU they do all of it. For a GPU they decode
(unless nvJPEG decodes on the GPU) and copy to pinned memory, from which the device copies the batch
while it computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distinit.pipeline.compute.device import memory_format
from distinit.pipeline.frames.jpeg import has_gpu_decoder
from distinit.pipeline.training.clips import StoredClips, to_clip
from distinit.pipeline.training.task import ClipBatch
from distinit.schemas.errors import ConfigError
from distinit.schemas.training import ClipConfig, RuntimeConfig

__all__ = ["DeviceBatch", "Feed"]


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """The input of one training step, on the device."""

    clip_BCTHW: Tensor
    targets: Mapping[str, Tensor]


class Feed:
    """Turns a ``ClipBatch`` into a ``DeviceBatch``. Can be shared between threads."""

    def __init__(
        self, clip: ClipConfig, runtime: RuntimeConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        """``dtype``: of the clips. Raises ConfigError if nvJPEG is requested but not available."""
        self._clip, self._device, self._dtype = clip, device, dtype
        self._decode_on_device = runtime.jpeg_decoder == "gpu"
        if self._decode_on_device and (device.type != "cuda" or not has_gpu_decoder()):
            raise ConfigError(
                "runtime.jpeg_decoder gpu needs a GPU and a torchvision with nvJPEG",
                found=f"device {device}",
                remedy="--set runtime.jpeg_decoder=cpu",
            )

    def prepare(self, batch: ClipBatch) -> ClipBatch | DeviceBatch:
        """Do what loader threads can do in advance. Raises FrameStoreError for damaged frames."""
        if self._device.type == "cpu":
            return self.to_device(batch)
        pixels = batch.pixels
        if not self._decode_on_device:
            pixels = batch.pixels_BTCHW.pin_memory()
        targets = {name: target.pin_memory() for name, target in batch.targets.items()}
        return ClipBatch(pixels, batch.flip_B.pin_memory(), targets)

    def to_device(self, batch: ClipBatch | DeviceBatch) -> DeviceBatch:
        """Do the rest of the work on a batch, whether or not it went through ``prepare``.

        Raises FrameStoreError for damaged frames.
        """
        if isinstance(batch, DeviceBatch):
            return batch
        device = self._device
        clip_BCTHW = to_clip(
            self._on_device(batch.pixels),
            batch.flip_B.to(device, non_blocking=True),
            self._clip,
            self._dtype,
            memory_format(device),
        )
        targets = {n: t.to(device, non_blocking=True) for n, t in batch.targets.items()}
        return DeviceBatch(clip_BCTHW, targets)

    def _on_device(self, pixels: Tensor | StoredClips) -> Tensor:
        if isinstance(pixels, StoredClips):
            return pixels.decode(self._device)
        return pixels.to(self._device, non_blocking=True)
