"""Turns decoded frames into a teacher's input, exactly as torchvision's classification presets."""

from __future__ import annotations

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from distinit.pipeline.video.views import View
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import PreprocessSpec

__all__ = ["preprocess", "view_for"]

_INTERPOLATION = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}
_RESIZE_BYTES = 256 * 2**20
"""Memory limit for the float copies of full-size frames: enough for 10 frames of 1080p."""


def view_for(spec: PreprocessSpec) -> View:
    """The size at which ffmpeg must deliver frames for this teacher: full size, or scaled."""
    if spec.resize == "exact":
        return View.source()
    if spec.resize_mode == "squash":
        return View.squash(spec.resize_size, spec.resize_size)
    return View.short_edge(spec.resize_size)


def preprocess(frames_NHWC: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    """Resize, centre crop, scale to 0..1 and normalise RGB frames uint8 [N, H, W, 3].

    Returns float32 [N, 3, crop_size, crop_size] on the frames' device, channels last in memory;
    with ``flip``, mirrored left to right. ``mean`` and ``std`` are in the order of
    ``spec.channel_order``. The result of a frame does not depend on the other frames. With
    ``resize="fast"``, ffmpeg has scaled the frames already and they are only cropped; raises
    TeacherError if they have another size.
    """
    frames_NCHW = frames_NHWC.permute(0, 3, 1, 2)
    if spec.resize == "exact":
        frames_NCHW = _resize(frames_NCHW, spec)
    else:
        _require_scaled(frames_NCHW, spec)
    crop_NCHW = transforms.center_crop(frames_NCHW, [spec.crop_size])
    if spec.channel_order == "bgr":
        crop_NCHW = crop_NCHW.flip(1)
    pixels_NCHW = transforms.convert_image_dtype(crop_NCHW, torch.float32)
    normalised_NCHW: torch.Tensor = transforms.normalize(
        pixels_NCHW, list(spec.mean), list(spec.std)
    )
    if spec.flip:
        normalised_NCHW = normalised_NCHW.flip(3)
    return normalised_NCHW.contiguous(memory_format=torch.channels_last)


def _resize(frames_NCHW: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    # torchvision's preset resizes in float32 and rounds back to uint8. torch's native uint8 kernel
    # is 8x as fast on a CPU, but differs by one grey level in 14 % of the pixels.
    edges = 2 if spec.resize_mode == "squash" else 1
    per_frame = 4 * frames_NCHW[0].numel() if len(frames_NCHW) else 1
    chunk = 1 if frames_NCHW.device.type == "cpu" else max(1, _RESIZE_BYTES // per_frame)
    parts = [
        transforms.resize(
            part.contiguous(),
            [spec.resize_size] * edges,
            interpolation=_INTERPOLATION[spec.interpolation],
            antialias=spec.antialias,
        )
        for part in torch.split(frames_NCHW, chunk)
    ]
    return torch.cat(parts)


def _require_scaled(frames_NCHW: torch.Tensor, spec: PreprocessSpec) -> None:
    height, width = frames_NCHW.shape[-2:]
    size = spec.resize_size
    matches = (
        (height, width) == (size, size)
        if spec.resize_mode == "squash"
        else (min(height, width) == size)
    )
    if not matches:
        raise TeacherError(
            "a teacher with resize=fast got frames that ffmpeg did not scale for it",
            expected=f"{size}x{size}" if spec.resize_mode == "squash" else f"short edge {size}",
            found=f"{height}x{width} (height x width)",
            remedy="decode with the teacher's `view`",
        )
