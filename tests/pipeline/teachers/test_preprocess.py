"""Preprocessing equals torchvision's preset, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import EfficientNet_B1_Weights, SqueezeNet1_1_Weights, WeightsEnum
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from distinit.pipeline.teachers.preprocess import preprocess, view_for
from distinit.pipeline.video.views import View
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import PreprocessSpec

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def spec_of(**changes: object) -> PreprocessSpec:
    fields: dict[str, object] = {
        "resize_mode": "short_edge",
        "resize_size": 32,
        "crop_size": 28,
        "mean": MEAN,
        "std": STD,
    }
    return PreprocessSpec.model_validate(fields | changes)


def random_frames(n: int, height: int, width: int) -> torch.Tensor:
    rng = np.random.default_rng(height * 1000 + width)
    return torch.from_numpy(rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "weights",
    [SqueezeNet1_1_Weights.IMAGENET1K_V1, EfficientNet_B1_Weights.IMAGENET1K_V1],
    ids=["bilinear", "bicubic"],
)
def test_equals_the_published_presets(weights: WeightsEnum) -> None:
    preset = weights.transforms()
    spec = PreprocessSpec(
        resize_mode="short_edge",
        resize_size=preset.resize_size[0],
        crop_size=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
    frames_NHWC = random_frames(2, 270, 481)
    expected = torch.stack([preset(frame.permute(2, 0, 1)) for frame in frames_NHWC])
    torch.testing.assert_close(preprocess(frames_NHWC, spec), expected, rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(9, 90),
    width=st.integers(9, 90),
    size=st.integers(8, 40),
    crop=st.integers(8, 40),
    antialias=st.booleans(),
)
def test_sizes_are_rounded_and_padded_as_by_the_preset(
    height: int, width: int, size: int, crop: int, antialias: bool
) -> None:
    spec = spec_of(resize_size=size, crop_size=crop, antialias=antialias)
    preset = ImageClassification(
        crop_size=crop,
        resize_size=size,
        mean=MEAN,
        std=STD,
        interpolation=InterpolationMode.BILINEAR,
        antialias=antialias,
    )
    frames_NHWC = random_frames(2, height, width)
    expected = torch.stack([preset(frame.permute(2, 0, 1)) for frame in frames_NHWC])
    torch.testing.assert_close(preprocess(frames_NHWC, spec), expected, rtol=0, atol=1e-6)


def test_output_is_channels_last_float32() -> None:
    output = preprocess(random_frames(3, 40, 50), spec_of())
    assert output.shape == (3, 3, 28, 28)
    assert output.dtype == torch.float32
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_squash_scales_both_edges() -> None:
    left_black = torch.zeros(1, 30, 120, 3, dtype=torch.uint8)
    left_black[:, :, 60:] = 255
    output = preprocess(
        left_black,
        spec_of(resize_mode="squash", crop_size=32, mean=(0, 0, 0), std=(1, 1, 1)),
    )
    # A centre crop after scaling the short edge would show the same halves. But 120 columns are
    # scaled to 32 here, so that antialiasing blurs the edge over two columns, and no more.
    assert torch.equal(output[..., :15], torch.zeros(1, 3, 32, 15))
    assert torch.equal(output[..., 17:], torch.ones(1, 3, 32, 15))


def test_squash_keeps_the_borders_that_a_crop_would_lose() -> None:
    striped = torch.zeros(1, 32, 128, 3, dtype=torch.uint8)
    striped[:, :, :32] = 255  # the left quarter
    spec = spec_of(crop_size=32, mean=(0, 0, 0), std=(1, 1, 1))
    squashed = preprocess(striped, spec.model_copy(update={"resize_mode": "squash"}))
    assert squashed.mean().item() == pytest.approx(0.25, abs=0.01)
    assert preprocess(striped, spec).max().item() == 0.0


def test_bgr_reorders_before_mean_and_std() -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(1, 32, 32, 3)
    spec = spec_of(channel_order="bgr", mean=(0.1, 0.2, 0.5), std=(1, 1, 0.5))
    output = preprocess(red, spec)
    torch.testing.assert_close(output[0, :, 0, 0], torch.tensor([-0.1, -0.2, 1.0]))


def test_fast_only_crops() -> None:
    frames_NHWC = random_frames(2, 32, 45)
    output = preprocess(frames_NHWC, spec_of(resize="fast", mean=(0, 0, 0), std=(1, 1, 1)))
    top, left = 2, 8  # (32 - 28) / 2 and (45 - 28) / 2, rounded half to even
    expected = frames_NHWC[:, top : top + 28, left : left + 28].permute(0, 3, 1, 2) / 255
    assert torch.equal(output, expected)


@pytest.mark.parametrize(("mode", "shape"), [("short_edge", (33, 45)), ("squash", (32, 45))])
def test_fast_refuses_frames_of_another_size(mode: str, shape: tuple[int, int]) -> None:
    with pytest.raises(TeacherError, match="did not scale") as raised:
        preprocess(random_frames(1, *shape), spec_of(resize="fast", resize_mode=mode))
    assert f"{shape[0]}x{shape[1]}" in str(raised.value)


def test_views() -> None:
    assert view_for(spec_of()) == View.source()
    assert view_for(spec_of(resize="fast")) == View.short_edge(32)
    assert view_for(spec_of(resize="fast", resize_mode="squash")) == View.squash(32, 32)


@settings(max_examples=60)
@given(height=st.integers(8, 3000), width=st.integers(8, 3000), size=st.integers(28, 400))
def test_fast_accepts_every_size_that_its_view_produces(height: int, width: int, size: int) -> None:
    spec = spec_of(resize="fast", resize_size=size)
    scaled_height, scaled_width = view_for(spec).size_for(width, height)
    one_pixel = torch.zeros(1, 1, 1, 3, dtype=torch.uint8)
    frames_NHWC = one_pixel.expand(1, scaled_height, scaled_width, 3)
    assert preprocess(frames_NHWC, spec).shape == (1, 3, 28, 28)


def test_flip_mirrors_the_input() -> None:
    frames = random_frames(2, 40, 60)
    plain, mirrored = spec_of(), spec_of(flip=True)
    assert torch.equal(preprocess(frames, mirrored), preprocess(frames, plain).flip(3))
    assert not torch.equal(preprocess(frames, mirrored), preprocess(frames, plain))
