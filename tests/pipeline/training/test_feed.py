"""Loader threads prepare batches without changing any value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.pipeline.training.clips import StoredClips, read_clips, to_clip
from distinit.pipeline.training.feed import DeviceBatch, Feed
from distinit.pipeline.training.sampling import ClipChoices
from distinit.pipeline.training.task import ClipBatch
from distinit.schemas.errors import ConfigError, FrameStoreError
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.training import ClipConfig, RuntimeConfig

CLIP = ClipConfig(frames=3, crop=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
CPU = torch.device("cpu")


@pytest.fixture
def batch(tmp_path: Path) -> ClipBatch:
    """Two clips of one video of 20 x 24 pixels, not decoded yet."""
    writer = FrameStoreWriter(tmp_path / "store", FrameGeometry(), "0" * 64)
    frames_NHWC = np.random.default_rng(0).integers(0, 256, (4, 20, 24, 3), dtype=np.uint8)
    with writer.open_unit(0) as unit:
        unit.append("a", "a" * 64, 0, frames_NHWC, 10.0)
        unit.commit()
    writer.finalise([0])
    choices = ClipChoices(
        video_N=np.array([0, 0]),
        frames_NT=np.array([[0, 1, 2], [3, 3, 3]]),
        crop_N2=np.array([[0.0, 0.5], [0.9, 0.0]]),
        flip_N=np.array([False, True]),
    )
    stored = read_clips(FrameStore.open(tmp_path / "store"), ["a"], choices, crop=16)
    return ClipBatch(stored, torch.from_numpy(choices.flip_N), {"label_B": torch.tensor([1, 0])})


def test_on_a_cpu_loader_threads_do_all_the_work(batch: ClipBatch) -> None:
    feed = Feed(CLIP, RuntimeConfig(), CPU, torch.float64)
    prepared = feed.prepare(batch)
    assert isinstance(prepared, DeviceBatch)
    assert feed.to_device(prepared) is prepared
    assert prepared.clip_BCTHW.shape == (2, 3, 3, 16, 16)
    assert torch.equal(
        prepared.clip_BCTHW, to_clip(batch.pixels_BTCHW, batch.flip_B, CLIP, torch.float64)
    )
    assert prepared.targets["label_B"].tolist() == [1, 0]


def test_decoded_and_stored_clips_give_the_same_input(batch: ClipBatch) -> None:
    feed = Feed(CLIP, RuntimeConfig(), CPU, torch.float32)
    decoded = ClipBatch(batch.pixels_BTCHW, batch.flip_B, batch.targets)
    assert isinstance(decoded.pixels, torch.Tensor)
    assert torch.equal(feed.to_device(decoded).clip_BCTHW, feed.to_device(batch).clip_BCTHW)


def test_a_repeated_frame_is_stored_once(batch: ClipBatch) -> None:
    assert isinstance(batch.pixels, StoredClips)
    assert len(batch.pixels.jpegs_M) == 4
    assert batch.pixels.frame_NT.tolist() == [[0, 1, 2], [3, 3, 3]]


def test_damaged_frames_are_an_error_in_the_loader_thread(batch: ClipBatch) -> None:
    assert isinstance(batch.pixels, StoredClips)
    good = batch.pixels
    broken = StoredClips([b"no JPEG"] * 4, good.frame_NT, good.crop_N2, good.crop, good.channels)
    feed = Feed(CLIP, RuntimeConfig(), CPU, torch.float32)
    with pytest.raises(FrameStoreError, match="not a readable JPEG"):
        feed.prepare(ClipBatch(broken, batch.flip_B, {}))


def test_decoding_on_a_gpu_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="jpeg_decoder gpu needs a GPU") as raised:
        Feed(CLIP, RuntimeConfig(jpeg_decoder="gpu"), CPU, torch.float32)
    assert "runtime.jpeg_decoder=cpu" in str(raised.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nvjpeg_agrees_with_the_cpu_within_a_few_levels(batch: ClipBatch) -> None:
    gpu = torch.device("cuda")
    feed = Feed(CLIP, RuntimeConfig(jpeg_decoder="gpu"), gpu, torch.float32)
    prepared = feed.prepare(batch)
    assert isinstance(prepared, ClipBatch)
    assert isinstance(prepared.pixels, StoredClips)
    by_cpu = Feed(CLIP, RuntimeConfig(), gpu, torch.float32)
    pinned = by_cpu.prepare(batch)
    assert isinstance(pinned, ClipBatch)
    assert isinstance(pinned.pixels, torch.Tensor)
    assert pinned.pixels.is_pinned()
    difference = feed.to_device(prepared).clip_BCTHW - by_cpu.to_device(pinned).clip_BCTHW
    assert difference.abs().mean() < 0.05
