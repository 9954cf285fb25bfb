"""Both decoders give the same pixels, so that a store reads the same on every machine."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from distinit.pipeline.frames.jpeg import (
    _decode_pillow,
    _decode_torchvision,
    decode_jpeg,
    encode_jpeg,
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


def test_quality_counts() -> None:
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
