"""From stored frames to the clip tensor a student reads (VMZ's augmentation)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.frames.flow import flow_from_levels
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.training.sampling import ClipChoices
from distinit.schemas.errors import ConfigError, FrameStoreError
from distinit.schemas.training import ClipConfig, StudentConfig

__all__ = ["check_crop", "check_pixels", "crop_offset", "load_pixels", "to_clip"]


def crop_offset(position: float, size: int, crop: int) -> int:
    """First pixel of a crop along one edge; ``position`` in [0, 1) spreads over all places."""
    return int(position * (size - crop + 1))


def check_pixels(store: FrameStore, student: StudentConfig, clip: ClipConfig) -> None:
    """Raise ConfigError unless the student reads what is stored: RGB, or flow and its range."""
    if store.channels != student.in_channels:
        raise ConfigError(
            f"the student does not read what the frame store {store.root} holds",
            expected=f"student.in_channels {store.channels}",
            found=f"student.in_channels {student.in_channels}",
            remedy="3 reads RGB; 2 reads flow, which `distinit flow build` makes of an RGB store",
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


def load_pixels(
    store: FrameStore, video_ids: Sequence[str], choices: ClipChoices, crop: int
) -> Tensor:
    """Decode and crop N clips: uint8 [N, T, channels, crop, crop]. ``video_ids`` by number."""
    clips = []
    for video, frames_T, position in zip(
        choices.video_N.tolist(), choices.frames_NT, choices.crop_N2.tolist(), strict=True
    ):
        frames_TCHW = _distinct_frames(store, video_ids[video], frames_T)
        height, width = frames_TCHW.shape[2:]
        top = crop_offset(position[0], height, crop)
        left = crop_offset(position[1], width, crop)
        clips.append(frames_TCHW[:, :, top : top + crop, left : left + crop])
    return torch.stack(clips)


def _distinct_frames(store: FrameStore, video_id: str, frames_T: NDArray[np.int64]) -> Tensor:
    """Frames [T, channels, H, W]; a frame that a short video repeats is decoded once."""
    distinct, inverse_T = np.unique(frames_T, return_inverse=True)
    frames = store.clip(video_id, distinct.tolist())
    return frames[torch.from_numpy(inverse_T)] if len(distinct) < len(frames_T) else frames


def to_clip(
    pixels_BTCHW: Tensor, flip_B: Tensor, config: ClipConfig, dtype: torch.dtype = torch.float32
) -> Tensor:
    """uint8 [B, T, C, H, W] -> flipped and normalised [B, C, T, H, W], on the pixels' device.

    Three channels are RGB, two are flow: mirrored motion runs the other way, so a flip negates x.
    """
    device = pixels_BTCHW.device
    pixels_BCTHW = pixels_BTCHW.permute(0, 2, 1, 3, 4)
    if pixels_BTCHW.shape[2] == 2:
        clip = flow_from_levels(pixels_BCTHW, config.flow_range, dtype)
        mirrored = clip.flip(-1) * torch.tensor([-1, 1], dtype=dtype, device=device).view(
            2, 1, 1, 1
        )
    else:
        clip = pixels_BCTHW.to(dtype) / 255
        mirrored = clip.flip(-1)
    clip = torch.where(flip_B.view(-1, 1, 1, 1, 1), mirrored, clip)
    mean = torch.tensor(config.mean, dtype=dtype, device=device).view(1, -1, 1, 1, 1)
    std = torch.tensor(config.std, dtype=dtype, device=device).view(1, -1, 1, 1, 1)
    return (clip - mean) / std
