"""Frames to JPEG bytes and back."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import torch
import torchvision.io  # noqa: F401  registers torch.ops.image
from PIL import Image, UnidentifiedImageError

from distinit.schemas.errors import FrameStoreError

__all__ = [
    "check_headers",
    "decode_frames",
    "decode_jpeg",
    "decode_planes",
    "encode_jpeg",
    "encode_planes",
    "has_gpu_decoder",
]

_CPU = torch.device("cpu")
_GREY, _RGB = 1, 3  # modes of torchvision's operators
_PIXELS_PER_BYTE = 128  # at most: a block of one colour takes 6 bits
_HEADERS_KEPT = 256
_SOI, _SOF0, _SOS = b"\xff\xd8", 0xC0, 0xDA
_IN_HEADER = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})  # tables, comments, APPn
_FRAME = struct.Struct(">BHHB")  # bits, height, width, components

_known_headers: dict[tuple[int, int, int], bytes] = {}
"""The last header that was found right, by (height, width, components)."""


def check_headers(jpegs: Sequence[bytes], height: int, width: int, components: int) -> None:
    """Raise FrameStoreError unless each begins as one baseline picture of this size.

    Before anything decodes them: decoders allocate what a header asks for, and 1 kB can ask for
    12.9 GB. The pictures of a store begin with the same bytes, so that one comparison is enough
    for nearly all of them.
    """
    key = height, width, components
    known = _known_headers.get(key)
    least_bytes = height * width / _PIXELS_PER_BYTE
    for jpeg in jpegs:
        if known is None or not jpeg.startswith(known):
            known = jpeg[: _header_bytes(jpeg, key)]
            if len(_known_headers) >= _HEADERS_KEPT:
                _known_headers.clear()
            _known_headers[key] = known
        if len(jpeg) < least_bytes:
            raise _unreadable(f"{len(jpeg)} bytes for {width}x{height} pixels")


def _header_bytes(jpeg: bytes, wanted: tuple[int, int, int]) -> int:
    """Length of the header, to the first scan. Raises FrameStoreError as ``check_headers``."""
    if not jpeg.startswith(_SOI):
        raise _unreadable("no start of an image")
    place, found = len(_SOI), None
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF:
        marker, length = jpeg[place + 1], int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if marker == _SOS and found is not None:
            return place + 2 + length
        if marker == _SOF0 and found is None and len(jpeg) >= place + 4 + _FRAME.size:
            bits, *found = _FRAME.unpack_from(jpeg, place + 4)
            if bits != 8 or tuple(found) != wanted:
                raise _unreadable(
                    "a picture of {} x {} pixels in {} components ".format(*found)
                    + "instead of {} x {} in {}".format(*wanted)
                )
        elif marker not in _IN_HEADER:
            raise _unreadable(f"marker {marker:#x} in the header")
        place += 2 + length
    raise _unreadable("no whole header")


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


def _unreadable(found: Exception | str) -> FrameStoreError:
    text = str(found)
    return FrameStoreError(
        "a stored frame is not a readable JPEG",
        found=text.splitlines()[0] if text else type(found).__name__,
        remedy="`distinit frames verify` names the damaged units of a store and how to repair them",
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
