"""Turns stored frames into the clip tensor that a student reads (augmented as in VMZ)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.frames.flow import ZERO_LEVEL, flow_step
from distinit.pipeline.frames.jpeg import decode_frames
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.training.sampling import ClipChoices
from distinit.schemas.errors import ConfigError, FrameStoreError
from distinit.schemas.training import ClipConfig, StudentConfig

__all__ = ["StoredClips", "check_crop", "check_pixels", "crop_offset", "read_clips", "to_clip"]

_CPU = torch.device("cpu")


def crop_offset(position: float, size: int, crop: int) -> int:
    """First pixel of a crop along one axis; ``position`` in [0, 1) spreads over all offsets."""
    return int(position * (size - crop + 1))


def check_pixels(store: FrameStore, student: StudentConfig, clip: ClipConfig) -> None:
    """Raise ConfigError unless the student reads what is stored: RGB, or flow of its range."""
    if store.channels != student.in_channels:
        raise ConfigError(
            f"the student does not read what the frame store {store.root} holds",
            expected=f"student.in_channels {store.channels}",
            found=f"student.in_channels {student.in_channels}",
            remedy="3 reads RGB; 2 reads flow, which `distinit flow build` makes from an RGB store",
        )
    flow = store.manifest.flow
    if flow is not None and flow.flow_range != clip.flow_range:
        raise ConfigError(
            f"the flow in {store.root} has another range",
            expected=f"clip.flow_range {flow.flow_range:g}",
            found=f"clip.flow_range {clip.flow_range:g}",
            remedy=f"--set clip.flow_range={flow.flow_range:g}",
        )


def check_crop(store: FrameStore, video_ids: Sequence[str], crop: int) -> None:
    """Raise FrameStoreError if a stored frame is smaller than the crop."""
    for video_id in video_ids:
        info = store.videos[video_id]
        if min(info.height, info.width) < crop:
            raise FrameStoreError(
                f"frames of video {video_id} are smaller than the crop",
                expected=f"at least {crop} x {crop} pixels",
                found=f"{info.height} x {info.width} pixels",
                remedy="lower clip.crop, or build a frame store with a larger short edge",
            )


@dataclass(frozen=True, slots=True)
class StoredClips:
    """N clips of T frames as JPEGs from the store, and where to crop them."""

    jpegs_M: Sequence[bytes]
    """The JPEG of each distinct frame of each clip."""
    frame_NT: NDArray[np.int64]
    """Index of each frame in ``jpegs_M``; clips of short videos repeat frames."""
    crop_N2: NDArray[np.float64]
    """(vertical, horizontal) position of the crop in [0, 1): see crop_offset."""
    crop: int
    """Height and width of the crop, pixels."""
    channels: int

    def decode(self, device: torch.device = _CPU) -> Tensor:
        """uint8 [N, T, channels, crop, crop], decoded on ``device``. Raises FrameStoreError."""
        frames_M = decode_frames(self.jpegs_M, self.channels, device)
        crops = [
            _cropped(frames_M[frame], position_2, self.crop)
            for position_2, frame_T in zip(
                self.crop_N2.tolist(), self.frame_NT.tolist(), strict=True
            )
            for frame in frame_T
        ]
        shape_NTHWC = (*self.frame_NT.shape, *crops[0].shape)
        return torch.stack(crops).view(shape_NTHWC).permute(0, 1, 4, 2, 3)


def _cropped(frame_CHW: Tensor, position_2: Sequence[float], crop: int) -> Tensor:
    """[crop, crop, C], in the decoder's memory order: a view that the caller copies."""
    height, width = frame_CHW.shape[1:]
    top = crop_offset(position_2[0], height, crop)
    left = crop_offset(position_2[1], width, crop)
    return frame_CHW[:, top : top + crop, left : left + crop].permute(1, 2, 0)


def read_clips(
    store: FrameStore, video_ids: Sequence[str], choices: ClipChoices, crop: int
) -> StoredClips:
    """Read N clips without decoding them. ``choices.video_N`` indexes ``video_ids``.

    Raises FrameStoreError for frames that cannot be read.
    """
    frames_NT = choices.frames_NT
    clips, span = len(frames_NT), int(frames_NT.max()) + 1
    # One sort for all clips: a sort per clip was the slowest part of loading after decoding.
    key_NT = np.arange(clips)[:, None] * span + frames_NT
    key_M, index_NT = np.unique(key_NT, return_inverse=True)
    first_N = np.searchsorted(key_M, np.arange(clips) * span)
    jpegs_M: list[bytes] = []
    for video, frames in zip(
        choices.video_N.tolist(), np.split(key_M % span, first_N[1:]), strict=True
    ):
        jpegs_M.extend(store.jpegs(video_ids[video], frames))
    return StoredClips(
        jpegs_M, index_NT.reshape(frames_NT.shape), choices.crop_N2, crop, store.channels
    )


def to_clip(
    pixels_BTCHW: Tensor,
    flip_B: Tensor,
    config: ClipConfig,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """uint8 [B, T, C, H, W] -> flipped and normalised [B, C, T, H, W], on the pixels' device.

    Three channels are RGB, two are flow. A flip mirrors motion too, so it negates the x of flow.
    Works in few passes and on bytes for as long as possible: for a small student on a CPU the time
    matters. On a GPU nothing here waits for the device.
    """
    channels = pixels_BTCHW.shape[2]
    scale_C, shift_C = _pixels_to_input(config, channels, dtype, pixels_BTCHW.device)
    clip = _flipped(pixels_BTCHW, flip_B).transpose(1, 2).to(dtype, memory_format=memory_format)
    if channels == 2:
        clip.sub_(ZERO_LEVEL)  # before scaling, so that zero motion stays exactly zero
        sign_B = 1 - 2 * flip_B.to(dtype)
        clip[:, 0].mul_(sign_B.view(-1, 1, 1, 1))
    per_channel = (-1, 1, 1, 1)
    return clip.mul_(scale_C.view(per_channel)).add_(shift_C.view(per_channel))


def _flipped(pixels_BTCHW: Tensor, flip_B: Tensor) -> Tensor:
    """Mirror the clips of ``flip_B``. On bytes, XOR is seven times as fast as torch.where."""
    mask_B = flip_B.to(torch.uint8).mul(255).view(-1, 1, 1, 1, 1)
    change = (pixels_BTCHW ^ pixels_BTCHW.flip(-1)).bitwise_and_(mask_B)
    return change.bitwise_xor_(pixels_BTCHW)


@cache
def _pixels_to_input(
    config: ClipConfig, channels: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(scale, shift) per channel [C]: the student reads ``level * scale + shift``.

    For flow, ``level`` counts from the level of zero motion. Computed in float64, and only once:
    a copy to a GPU would make every step wait.
    """
    with torch.inference_mode(mode=False):  # training uses them too
        mean_C = torch.tensor(config.mean, dtype=torch.float64)
        std_C = torch.tensor(config.std, dtype=torch.float64)
        unit = flow_step(config.flow_range) if channels == 2 else 1 / 255
        scale_C, shift_C = unit / std_C, -mean_C / std_C
        return scale_C.to(device, dtype), shift_C.to(device, dtype)
