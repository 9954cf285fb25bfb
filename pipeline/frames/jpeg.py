"""Encodes frames as JPEG and decodes them."""

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
    "encode_jpeg",
    "encode_planes",
    "has_gpu_decoder",
]

_CPU = torch.device("cpu")
_GRAY, _RGB = 1, 3  # modes of torchvision's operators
_MAX_PIXELS_PER_BYTE = 128  # a block of a single colour takes 6 bits
_HEADERS_KEPT = 256
_SOI, _SOF0, _SOS = b"\xff\xd8", 0xC0, 0xDA
_IN_HEADER = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})  # tables, comments, APPn
_FRAME = struct.Struct(">BHHB")  # bits, height, width, components

_known_headers: dict[tuple[int, int, int], bytes] = {}
"""(height, width, components) -> the last valid header of this size."""


def check_headers(jpegs: Sequence[bytes], height: int, width: int, components: int) -> None:
    """Raise FrameStoreError unless each JPEG has the header of a baseline image of this size.

    Must be called before decoding: decoders allocate what a header asks for, and 1 kB can ask for
    12.9 GB. The JPEGs of a store begin with the same bytes, so that one comparison suffices for
    nearly all of them.
    """
    key = height, width, components
    known = _known_headers.get(key)
    min_bytes = height * width / _MAX_PIXELS_PER_BYTE
    for jpeg in jpegs:
        if known is None or not jpeg.startswith(known):
            known = jpeg[: _header_bytes(jpeg, key)]
            if len(_known_headers) >= _HEADERS_KEPT:
                _known_headers.clear()
            _known_headers[key] = known
        if len(jpeg) < min_bytes:
            raise _unreadable(f"{len(jpeg)} bytes for {width}x{height} pixels")


def _header_bytes(jpeg: bytes, expected: tuple[int, int, int]) -> int:
    """Length of the header, up to the first scan. Raises FrameStoreError as ``check_headers``."""
    if not jpeg.startswith(_SOI):
        raise _unreadable("no start-of-image marker")
    at, found = len(_SOI), None
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == _SOS and found is not None:
            return at + 2 + length
        if marker == _SOF0 and found is None and len(jpeg) >= at + 4 + _FRAME.size:
            bits, *found = _FRAME.unpack_from(jpeg, at + 4)
            if bits != 8 or tuple(found) != expected:
                raise _unreadable(
                    "an image of {} x {} pixels with {} components ".format(*found)
                    + "instead of {} x {} with {}".format(*expected)
                )
        elif marker not in _IN_HEADER:
            raise _unreadable(f"marker {marker:#x} in the header")
        at += 2 + length
    raise _unreadable("an incomplete header")


def encode_jpeg(frame_HWC: np.ndarray, quality: int) -> bytes:
    """Encode one uint8 RGB frame as JPEG (4:2:0, libjpeg's quality scale)."""
    buffer = io.BytesIO()
    Image.fromarray(frame_HWC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def encode_planes(planes_HWP: np.ndarray, quality: int) -> bytes:
    """Encode P uint8 planes as one gray JPEG, stacked vertically.

    In gray, no colour transform mixes the planes.
    """
    stacked = np.concatenate(np.moveaxis(planes_HWP, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(stacked).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def decode_frames(
    jpegs: Sequence[bytes], channels: int, device: torch.device = _CPU
) -> list[torch.Tensor]:
    """Decode each JPEG to uint8 [channels, H, W]: RGB if ``channels`` is 3, else planes of flow.

    On a GPU, nvJPEG decodes all of them at once; its pixels differ slightly from a CPU's. Raises
    FrameStoreError for bytes that are not a JPEG, and for an image that does not hold whole planes.
    """
    gray = channels != 3
    if device.type == "cpu":
        images = [_decoded(jpeg, gray=gray) for jpeg in jpegs]
    else:
        images = _decoded_on_gpu(jpegs, gray, device)
    return [_split_planes(image, channels) for image in images] if gray else images


def _split_planes(gray_1HW: torch.Tensor, plane_count: int) -> torch.Tensor:
    gray_HW = gray_1HW[0]
    if gray_HW.shape[0] % plane_count:
        raise FrameStoreError(
            f"a stored image does not hold {plane_count} planes",
            expected=f"a multiple of {plane_count} rows of pixels",
            found=f"{gray_HW.shape[0]} rows",
        )
    return gray_HW.reshape(plane_count, -1, gray_HW.shape[1])


def decode_jpeg(jpeg: bytes) -> torch.Tensor:
    """Decode one JPEG to uint8 RGB [3, H, W]. Raises FrameStoreError if it is not a JPEG."""
    return _decoded(jpeg, gray=False)


def has_gpu_decoder() -> bool:
    """Whether this torchvision can decode JPEGs on a GPU."""
    return hasattr(torch.ops.image, "decode_jpegs_cuda")


def _decoded(jpeg: bytes, *, gray: bool) -> torch.Tensor:
    try:
        return _decode(jpeg, gray)
    except (RuntimeError, OSError, UnidentifiedImageError, ValueError) as error:
        raise _unreadable(error) from error


def _decoded_on_gpu(jpegs: Sequence[bytes], gray: bool, device: torch.device) -> list[torch.Tensor]:
    try:
        images: list[torch.Tensor] = torch.ops.image.decode_jpegs_cuda(
            [_bytes(jpeg) for jpeg in jpegs], _GRAY if gray else _RGB, device
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _unreadable(error) from error
    return images


def _unreadable(found: Exception | str) -> FrameStoreError:
    text = str(found)
    return FrameStoreError(
        "a stored frame is not a readable JPEG",
        found=text.splitlines()[0] if text else type(found).__name__,
        remedy="run `distinit frames verify STORE`: it lists the damaged units of a store, and how "
        "to repair them",
    )


def _decode_pillow(jpeg: bytes, gray: bool = False) -> torch.Tensor:
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        pixels = torch.from_numpy(np.array(image.convert("L" if gray else "RGB")))
        return pixels[None] if gray else pixels.permute(2, 0, 1).contiguous()


def _decode_torchvision(jpeg: bytes, gray: bool = False) -> torch.Tensor:
    # The operator itself, because the Python wrapper warns on every call that it is deprecated.
    # Naming the overload saves a look-up for each small image.
    no_rotation = False
    decoded: torch.Tensor = torch.ops.image.decode_jpeg.default(
        _bytes(jpeg), _GRAY if gray else _RGB, no_rotation
    )
    return decoded


def _bytes(jpeg: bytes) -> torch.Tensor:
    # A copy, because torch has no read-only tensors.
    return torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)


# Both give the same pixels; torchvision takes about 60 % of Pillow's time.
_decode = _decode_torchvision if hasattr(torch.ops.image, "decode_jpeg") else _decode_pillow
