"""Clip starts follow the published formulas, and every frame index is inside the video."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.evaluation.clips import (
    ClipProtocol,
    clip_indices,
    parse_protocol,
    protocol_clip_starts,
    protocol_crops,
)
from distinit.schemas.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "frame_count", "frames", "starts"),
    [
        ("vmz-10", 100, 8, [0, 10, 20, 30, 40, 51, 61, 71, 81, 92]),
        ("vmz-10", 17, 8, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("vmz-10", 10, 8, [0, 0, 0, 0, 0, 1, 1, 1, 1, 2]),
        ("vmz-3", 5, 8, [0, 0, 0]),
        ("vmz-1", 100, 8, [46]),
        ("dense-s4", 20, 8, [0, 4, 8, 12]),
        ("dense-s5", 20, 8, [0, 5, 10]),
        ("dense-s1", 9, 8, [0, 1]),
        ("dense-s4", 3, 8, [0]),
        ("slowfast-10x3", 100, 8, [0, 9, 18, 27, 36, 46, 55, 64, 73, 82]),
        ("slowfast-3x1", 5, 8, [0, 0, 0]),
        ("slowfast-1x3", 100, 8, [0]),
    ],
)
def test_starts_of_each_protocol(
    name: str, frame_count: int, frames: int, starts: list[int]
) -> None:
    assert protocol_clip_starts(parse_protocol(name), frame_count, frames).tolist() == starts


@given(st.integers(2, 30), st.integers(1, 5000), st.integers(1, 64))
def test_vmz_starts_follow_the_formula_and_fit(clips: int, frame_count: int, frames: int) -> None:
    starts = protocol_clip_starts(ClipProtocol("vmz", clips), frame_count, frames)
    last = max(0, frame_count - frames)
    assert starts.tolist() == [math.floor(i * last / (clips - 1) + 1e-12) for i in range(clips)]
    assert starts[0] == 0
    assert starts[-1] == last


@given(st.integers(1, 50), st.integers(1, 2000), st.integers(1, 64))
def test_dense_starts_reach_the_end(stride: int, frame_count: int, frames: int) -> None:
    starts = protocol_clip_starts(ClipProtocol("dense", stride), frame_count, frames)
    assert (np.diff(starts) == stride).all()
    assert starts[0] == 0
    assert starts[-1] + stride > frame_count - frames
    assert starts[-1] <= max(0, frame_count - frames)


@given(st.integers(0, 100), st.integers(1, 100), st.integers(1, 64))
def test_frames_of_a_clip_are_consecutive_modulo_the_frame_count(
    start: int, frame_count: int, frames: int
) -> None:
    start %= frame_count
    indices = clip_indices(start, frame_count, frames)
    assert len(indices) == frames
    assert indices[0] == start
    assert set(np.diff(indices)) <= {1, 1 - frame_count, 0 if frame_count == 1 else 1}
    assert 0 <= indices.min() <= indices.max() < frame_count


def test_a_short_video_is_repeated() -> None:
    assert clip_indices(0, 3, 8).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    "name",
    ["vmz-0", "vmz", "dense-4", "dense-s0", "vmz-010", "", "vmz-1 ", "slowfast-10", "slowfast-9x2"],
)
def test_unknown_protocols_are_rejected(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown evaluation protocol"):
        parse_protocol(name)


def test_the_centre_crop_rounds_down() -> None:
    for protocol in ("vmz-10", "dense-s4"):
        assert protocol_crops(parse_protocol(protocol), 128, 171, 112) == [(8, 29)]
    with pytest.raises(ConfigError, match="larger than the stored frames"):
        protocol_crops(parse_protocol("vmz-10"), 128, 171, 129)


def pyslowfast_frames(frame_count: int, frames: int, clip: int, clips: int) -> list[int]:
    """decoder.py of PySlowFast: ``get_start_end_idx``, then ``temporal_sampling``, at rate 1."""
    delta = max(frame_count - frames, 0)
    start = delta * clip / clips
    index = torch.linspace(start, start + frames - 1, frames, dtype=torch.float64)
    rounded = torch.round(index, decimals=9)  # linspace may end just below an integer
    indices: list[int] = torch.clamp(rounded, 0, frame_count - 1).long().tolist()
    return indices


@given(st.integers(1, 12), st.integers(1, 400), st.integers(1, 40))
def test_slowfast_clips_are_those_of_pyslowfast(clips: int, frame_count: int, frames: int) -> None:
    starts = protocol_clip_starts(ClipProtocol("slowfast", clips, 3), frame_count, frames)
    assert len(starts) == clips
    for number, start in enumerate(starts.tolist()):
        expected = pyslowfast_frames(frame_count, frames, number, clips)
        found = clip_indices(start, frame_count, frames)
        if frame_count >= frames:
            assert found.tolist() == expected
        else:  # PySlowFast repeats the last frame of a short video
            assert found[:frame_count].tolist() == expected[:frame_count] == [*range(frame_count)]


def pyslowfast_crop(images: torch.Tensor, size: int, spatial_index: int) -> torch.Tensor:
    """transform.py of PySlowFast: ``uniform_crop``."""
    height, width = images.shape[2:]
    y_offset, x_offset = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if height > width:
        y_offset = {0: 0, 1: y_offset, 2: height - size}[spatial_index]
    else:
        x_offset = {0: 0, 1: x_offset, 2: width - size}[spatial_index]
    return images[:, :, y_offset : y_offset + size, x_offset : x_offset + size]


@pytest.mark.parametrize(
    ("height", "width"), [(128, 171), (171, 128), (112, 149), (149, 112), (112, 112), (120, 120)]
)
def test_slowfast_crops_are_those_of_pyslowfast(height: int, width: int) -> None:
    frames = torch.arange(height * width).view(1, 1, height, width)
    crops = protocol_crops(parse_protocol("slowfast-10x3"), height, width, 112)
    for index, (top, left) in enumerate(crops):
        expected = pyslowfast_crop(frames, 112, index)
        assert torch.equal(frames[:, :, top : top + 112, left : left + 112], expected)
    assert protocol_crops(parse_protocol("slowfast-10x1"), height, width, 112) == [crops[1]]


def test_slowfast_crops_cover_the_longer_side() -> None:
    assert protocol_crops(parse_protocol("slowfast-1x3"), 128, 171, 112) == [
        (8, 0),
        (8, 30),
        (8, 59),
    ]


@pytest.mark.parametrize(
    ("name", "clips"), [("vmz-10", 10), ("dense-s4", 1), ("slowfast-10x3", 30), ("slowfast-4x1", 4)]
)
def test_a_failed_video_has_as_many_clips_as_a_long_one_or_one(name: str, clips: int) -> None:
    assert parse_protocol(name).clips_of_failed == clips
