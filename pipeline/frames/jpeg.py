"""Frames to JPEG bytes and back."""

from __future__ import annotations

import io

import numpy as np
import torch
import torchvision.io  # noqa: F401  registers torch.ops.image
from PIL import Image, UnidentifiedImageError

from distinit.schemas.errors import FrameStoreError

__all__ = ["decode_jpeg", "decode_planes", "encode_jpeg", "encode_planes"]


def encode_jpeg(frame_HWC: np.ndarray, quality: int) -> bytes:
    """JPEG (4:2:0, libjpeg's quality scale) of one uint8 RGB frame."""
    buffer = io.BytesIO()
    Image.fromarray(frame_HWC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def encode_planes(planes_HWP: np.ndarray, quality: int) -> bytes:
    """One grey JPEG of P uint8 planes, one below the other: no colour transform mixes them."""
    stacked = np.concatenate(np.moveaxis(planes_HWP, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(stacked).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def decode_planes(jpeg: bytes, planes: int) -> torch.Tensor:
    """uint8 [planes, H, W] of what ``encode_planes`` wrote. Raises FrameStoreError as below."""
    grey_HW = _decoded(jpeg, grey=True)[0]
    if grey_HW.shape[0] % planes:
        raise FrameStoreError(
            f"a stored picture does not hold {planes} planes", found=f"{grey_HW.shape[0]} rows"
        )
    return grey_HW.view(planes, -1, grey_HW.shape[1])


def decode_jpeg(jpeg: bytes) -> torch.Tensor:
    """uint8 RGB [3, H, W] of one JPEG. Raises FrameStoreError for bytes that are none."""
    return _decoded(jpeg, grey=False)


def _decoded(jpeg: bytes, *, grey: bool) -> torch.Tensor:
    try:
        return _decode(jpeg, grey)
    except (RuntimeError, OSError, UnidentifiedImageError, ValueError) as error:
        raise FrameStoreError(
            "a stored frame is not a readable JPEG",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            remedy="run `distinit frames verify` on the store and build it again",
        ) from error


def _decode_pillow(jpeg: bytes, grey: bool = False) -> torch.Tensor:
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        pixels = torch.from_numpy(np.array(image.convert("L" if grey else "RGB")))
        return pixels[None] if grey else pixels.permute(2, 0, 1).contiguous()


def _decode_torchvision(jpeg: bytes, grey: bool = False) -> torch.Tensor:
    # The operator itself: the Python wrapper warns on every call that a later release drops it.
    # Mode 1 is grey, 3 is RGB; False: no EXIF rotation. A copy, as torch has no read-only tensors.
    data_N = torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
    decoded: torch.Tensor = torch.ops.image.decode_jpeg(data_N, 1 if grey else 3, False)
    return decoded


# Equal pixels from both; torchvision's takes about 60 % of Pillow's time.
_decode = _decode_torchvision if hasattr(torch.ops.image, "decode_jpeg") else _decode_pillow
