"""The way of a batch to the student: decoded, normalised and on its device.

What can be done ahead is done by the loader threads: on a CPU all of it, so that the step finds its
input ready; for a GPU decoding (unless nvJPEG does it there) and copying to pinned memory, from
which the device fetches it while it computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distinit.pipeline.frames.jpeg import has_gpu_decoder
from distinit.pipeline.training.clips import StoredClips, to_clip
from distinit.pipeline.training.task import ClipBatch
from distinit.schemas.errors import ConfigError
from distinit.schemas.training import ClipConfig, RuntimeConfig

__all__ = ["DeviceBatch", "Feed"]


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """What a step computes with."""

    clip_BCTHW: Tensor
    targets: Mapping[str, Tensor]


class Feed:
    """Batches in, what a step computes with out. Safe to share between threads."""

    def __init__(
        self, clip: ClipConfig, runtime: RuntimeConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        """``dtype`` of the clips. Raises ConfigError where nvJPEG is asked for and missing."""
        self._clip, self._device, self._dtype = clip, device, dtype
        self._decode_on_device = runtime.jpeg_decoder == "gpu"
        if self._decode_on_device and (device.type != "cuda" or not has_gpu_decoder()):
            raise ConfigError(
                "runtime.jpeg_decoder gpu needs a GPU and a torchvision built for it",
                found=f"device {device}",
                remedy="--set runtime.jpeg_decoder=cpu",
            )

    def ahead(self, batch: ClipBatch) -> ClipBatch | DeviceBatch:
        """As much as a loader thread can do. Raises FrameStoreError for damaged frames."""
        if self._device.type == "cpu":
            return self.ready(batch)
        pixels = batch.pixels
        if not self._decode_on_device:
            pixels = batch.pixels_BTCHW.pin_memory()
        targets = {name: target.pin_memory() for name, target in batch.targets.items()}
        return ClipBatch(pixels, batch.flip_B.pin_memory(), targets)

    def ready(self, item: ClipBatch | DeviceBatch) -> DeviceBatch:
        """The rest. Raises FrameStoreError for damaged frames."""
        if isinstance(item, DeviceBatch):
            return item
        device = self._device
        clip_BCTHW = to_clip(
            self._on_device(item.pixels),
            item.flip_B.to(device, non_blocking=True),
            self._clip,
            self._dtype,
        )
        if device.type == "cuda":
            clip_BCTHW = clip_BCTHW.contiguous(memory_format=torch.channels_last_3d)
        targets = {n: t.to(device, non_blocking=True) for n, t in item.targets.items()}
        return DeviceBatch(clip_BCTHW, targets)

    def _on_device(self, pixels: Tensor | StoredClips) -> Tensor:
        if isinstance(pixels, StoredClips):
            return pixels.decode(self._device)
        return pixels.to(self._device, non_blocking=True)
