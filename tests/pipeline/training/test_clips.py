"""Crops, flips and normalisation, compared pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.pipeline.training.clips import (
    check_crop,
    check_pixels,
    crop_offset,
    read_clips,
    to_clip,
)
from distinit.pipeline.training.sampling import ClipChoices
from distinit.schemas.errors import ConfigError, FrameStoreError
from distinit.schemas.frames import FlowSpec, FrameGeometry
from distinit.schemas.training import ClipConfig, StudentConfig

GREY = ClipConfig(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0), flip=0.5)


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    """Two videos of 24 x 32 and 20 x 20 pixels: grey ramps, brighter to the right and over time."""
    writer = FrameStoreWriter(tmp_path / "store", FrameGeometry(jpeg_quality=90), "0" * 64)
    with writer.open_unit(0) as unit:
        for name, count, height, width in (("a", 6, 24, 32), ("b", 3, 20, 20)):
            levels = 20 * np.arange(count)[:, None, None] + 3 * np.arange(width)[None, None]
            frames = np.broadcast_to(levels[..., None], (count, height, width, 3))
            unit.append(name, name * 64, 0, np.ascontiguousarray(frames, np.uint8), 10.0)
        unit.commit()
    writer.finalise([0])
    return FrameStore.open(tmp_path / "store")


def test_crop_offsets_cover_every_possible_offset() -> None:
    offsets = [crop_offset(u, 20, 16) for u in np.linspace(0, 1, 101)[:-1]]
    assert set(offsets) == {0, 1, 2, 3, 4}
    assert crop_offset(0.999, 16, 16) == 0


def test_pixels_come_from_the_chosen_video_frames_and_crop(store: FrameStore) -> None:
    choices = ClipChoices(
        video_N=np.array([1, 0]),
        frames_NT=np.array([[0, 1, 2, 0], [2, 3, 4, 5]]),
        crop_N2=np.array([[0.0, 0.0], [0.99, 0.5]]),
        flip_N=np.array([False, True]),
    )
    pixels = read_clips(store, ["a", "b"], choices, crop=16).decode()
    assert pixels.shape == (2, 4, 3, 16, 16)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[0, 3], pixels[0, 0])
    expected = store.clip("a", [2, 3, 4, 5])[:, :, 8:24, 8:24]
    assert torch.equal(pixels[1], expected)


def test_pixels_are_normalised_and_axes_permuted() -> None:
    pixels = torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8)
    clip = to_clip(pixels, torch.tensor([False, True]), GREY)
    assert clip.shape == (2, 3, 4, 16, 16)
    plain = (pixels[0, 1, 2, 3, 5].item() / 255 - 0.5) / 1.0
    assert clip[0, 2, 1, 3, 5].item() == pytest.approx(plain, abs=1e-6)
    flipped = (pixels[1, 3, 0, 2, 15].item() / 255 - 0.5) / 0.25
    assert clip[1, 0, 3, 2, 0].item() == pytest.approx(flipped, abs=1e-6)


def test_a_crop_larger_than_a_stored_frame_is_rejected(store: FrameStore) -> None:
    check_crop(store, ["a", "b"], 20)
    with pytest.raises(FrameStoreError, match="video b are smaller than the crop"):
        check_crop(store, ["a", "b"], 21)


FLOW = ClipConfig(mean=(0, 0), std=(1, 1), flow_range=12.7)


def levels(seed: int = 0) -> torch.Tensor:
    """Random levels from 1 to 255: uint8 [2, 3, 2, 16, 16]."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(1, 256, (2, 3, 2, 16, 16), dtype=np.uint8))


def test_flow_is_normalised_in_pixels_per_frame() -> None:
    clip = to_clip(levels(), torch.zeros(2, dtype=torch.bool), FLOW, torch.float64)
    expected = (levels().permute(0, 2, 1, 3, 4).double() - 128) / 10
    assert clip.shape == (2, 2, 3, 16, 16)
    assert (clip - expected).abs().max() < 1e-12
    scaled = FLOW.model_copy(update={"mean": (0.5, -1.0), "std": (2.0, 4.0)})
    found = to_clip(levels(), torch.zeros(2, dtype=torch.bool), scaled, torch.float64)
    assert (found[:, 0] - (expected[:, 0] - 0.5) / 2).abs().max() < 1e-12
    assert (found[:, 1] - (expected[:, 1] + 1) / 4).abs().max() < 1e-12


def test_a_flip_of_flow_negates_x_exactly_and_leaves_zero_at_zero() -> None:
    pixels = levels()
    mirrored = pixels.flip(-1).to(torch.int16)
    mirrored[:, :, 0] = 256 - mirrored[:, :, 0]
    flip, keep = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    flipped = to_clip(pixels, flip, FLOW)
    assert torch.equal(flipped, to_clip(mirrored.to(torch.uint8), keep, FLOW))
    assert torch.equal(flipped[:, 0], -to_clip(pixels, keep, FLOW)[:, 0].flip(-1))
    assert torch.equal(flipped[:, 1], to_clip(pixels, keep, FLOW)[:, 1].flip(-1))
    still = torch.full_like(pixels, 128)
    assert (to_clip(still, flip, FLOW) == 0).all()
    assert (to_clip(still, keep, FLOW) == 0).all()


def test_a_student_must_read_what_the_store_holds(store: FrameStore, tmp_path: Path) -> None:
    spec = FlowSpec(flow_range=20, jpeg_quality=95, opencv="test")
    writer = FrameStoreWriter(tmp_path / "flow", FrameGeometry(), "0" * 64, spec)
    with writer.open_unit(0) as unit:
        unit.append("a", "a" * 64, 0, np.full((2, 24, 32, 2), 128, np.uint8), 10.0)
        unit.commit()
    writer.finalise([0])
    flow = FrameStore.open(tmp_path / "flow")
    rgb_student, flow_student = StudentConfig(), StudentConfig(in_channels=2)
    check_pixels(store, rgb_student, ClipConfig())
    check_pixels(flow, flow_student, ClipConfig(flow_range=20))
    for some, student in ((store, flow_student), (flow, rgb_student)):
        with pytest.raises(ConfigError, match="does not read what the frame store"):
            check_pixels(some, student, ClipConfig())
    with pytest.raises(ConfigError, match="another range") as caught:
        check_pixels(flow, flow_student, ClipConfig(flow_range=10))
    assert caught.value.remedy == "--set clip.flow_range=20"
