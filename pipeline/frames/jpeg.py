"""Frames to JPEG bytes and back."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
import torchvision.io  # noqa: F401  registers torch.ops.image
from PIL import Image, UnidentifiedImageError

from distinit.schemas.errors import FrameStoreError

__all__ = [
    "decode_frames",
    "decode_jpeg",
    "decode_planes",
    "encode_jpeg",
    "encode_planes",
    "has_gpu_decoder",
]

_CPU = torch.device("cpu")
_GREY, _RGB = 1, 3  # modes of torchvision's operators


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


def decode_frames(
    jpegs: Sequence[bytes], channels: int, device: torch.device = _CPU
) -> list[torch.Tensor]:
    """uint8 [channels, H, W] of each picture: 3 are RGB, any other number planes of flow.

    On a GPU nvJPEG decodes all of them at once; its levels differ a little from a CPU's. Raises
    FrameStoreError for bytes that are no JPEG.
    """
    grey = channels != 3
    if device.type == "cpu":
        pictures = [_decoded(jpeg, grey=grey) for jpeg in jpegs]
    else:
        pictures = _decoded_on_gpu(jpegs, grey, device)
    return [_planes(picture, channels) for picture in pictures] if grey else pictures


def decode_planes(jpeg: bytes, planes: int) -> torch.Tensor:
    """uint8 [planes, H, W] of what ``encode_planes`` wrote. Raises FrameStoreError as below."""
    return _planes(_decoded(jpeg, grey=True), planes)


def _planes(grey_1HW: torch.Tensor, planes: int) -> torch.Tensor:
    grey_HW = grey_1HW[0]
    if grey_HW.shape[0] % planes:
        raise FrameStoreError(
            f"a stored picture does not hold {planes} planes", found=f"{grey_HW.shape[0]} rows"
        )
    return grey_HW.reshape(planes, -1, grey_HW.shape[1])


def decode_jpeg(jpeg: bytes) -> torch.Tensor:
    """uint8 RGB [3, H, W] of one JPEG. Raises FrameStoreError for bytes that are none."""
    return _decoded(jpeg, grey=False)


def has_gpu_decoder() -> bool:
    """Whether this torchvision can decode on a GPU."""
    return hasattr(torch.ops.image, "decode_jpegs_cuda")


def _decoded(jpeg: bytes, *, grey: bool) -> torch.Tensor:
    try:
        return _decode(jpeg, grey)
    except (RuntimeError, OSError, UnidentifiedImageError, ValueError) as error:
        raise _unreadable(error) from error


def _decoded_on_gpu(jpegs: Sequence[bytes], grey: bool, device: torch.device) -> list[torch.Tensor]:
    try:
        pictures: list[torch.Tensor] = torch.ops.image.decode_jpegs_cuda(
            [_bytes(jpeg) for jpeg in jpegs], _GREY if grey else _RGB, device
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _unreadable(error) from error
    return pictures


def _unreadable(error: Exception) -> FrameStoreError:
    return FrameStoreError(
        "a stored frame is not a readable JPEG",
        found=str(error).splitlines()[0] if str(error) else type(error).__name__,
        remedy="run `distinit frames verify` on the store and build it again",
    )


def _decode_pillow(jpeg: bytes, grey: bool = False) -> torch.Tensor:
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        pixels = torch.from_numpy(np.array(image.convert("L" if grey else "RGB")))
        return pixels[None] if grey else pixels.permute(2, 0, 1).contiguous()


def _decode_torchvision(jpeg: bytes, grey: bool = False) -> torch.Tensor:
    # The operator itself: the Python wrapper warns on every call that a later release drops it.
    # Its overload by name spares a look-up at each small picture.
    no_rotation = False
    decoded: torch.Tensor = torch.ops.image.decode_jpeg.default(
        _bytes(jpeg), _GREY if grey else _RGB, no_rotation
    )
    return decoded


def _bytes(jpeg: bytes) -> torch.Tensor:
    # A copy, as torch has no read-only tensors.
    return torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)


# Equal pixels from both; torchvision's takes about 60 % of Pillow's time.
_decode = _decode_torchvision if hasattr(torch.ops.image, "decode_jpeg") else _decode_pillow
