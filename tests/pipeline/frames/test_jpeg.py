"""Both decoders give the same pixels, so that every machine reads the same from a store."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from distinit.pipeline.frames.jpeg import (
    _decode_pillow,
    _decode_torchvision,
    decode_frames,
    decode_jpeg,
    encode_jpeg,
    encode_planes,
)
from distinit.schemas.errors import FrameStoreError


@pytest.mark.parametrize("size", [(128, 171), (17, 31), (1, 1)])
def test_decoders_agree(size: tuple[int, int]) -> None:
    frame_HWC = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    jpeg = encode_jpeg(frame_HWC, 90)
    decoded_CHW = decode_jpeg(jpeg)
    assert decoded_CHW.shape == (3, *size)
    assert decoded_CHW.dtype == torch.uint8
    assert torch.equal(_decode_pillow(jpeg), _decode_torchvision(jpeg))
    assert torch.equal(decoded_CHW, _decode_torchvision(jpeg))


@pytest.mark.parametrize("size", [(128, 171), (17, 31)])
def test_planes_keep_their_order_and_do_not_mix(size: tuple[int, int]) -> None:
    planes_HW2 = np.zeros((*size, 2), np.uint8)
    planes_HW2[..., 0], planes_HW2[..., 1] = 128, np.linspace(0, 255, size[1])
    jpeg = encode_planes(planes_HW2, 95)
    decoded_2HW = decode_frames([jpeg], channels=2)[0]
    assert decoded_2HW.shape == (2, *size)
    assert (decoded_2HW[0, : size[0] // 8 * 8] == 128).all(), "a constant plane is exact"
    error = decoded_2HW[1].int() - torch.from_numpy(planes_HW2[..., 1]).int()
    assert error.abs().max() <= 4
    assert torch.equal(_decode_pillow(jpeg, True), _decode_torchvision(jpeg, True))
    with pytest.raises(FrameStoreError, match="does not hold 5 planes"):
        decode_frames([jpeg], channels=5)


def test_a_higher_quality_takes_more_bytes() -> None:
    frame_HWC = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert len(encode_jpeg(frame_HWC, 95)) > 1.5 * len(encode_jpeg(frame_HWC, 60))


def test_refuses_other_formats() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    for data in (buffer.getvalue(), b"", b"\xff\xd8\xff"):
        with pytest.raises(FrameStoreError, match="not a readable JPEG"):
            decode_jpeg(data)
        with pytest.raises((OSError, RuntimeError, ValueError)):
            _decode_pillow(data)
