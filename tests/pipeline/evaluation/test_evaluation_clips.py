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
    centre_crop,
    clip_indices,
    parse_protocol,
    protocol_clip_starts,
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


@pytest.mark.parametrize("name", ["vmz-0", "vmz", "dense-4", "dense-s0", "vmz-010", "", "vmz-1 "])
def test_unknown_protocols_are_rejected(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown evaluation protocol"):
        parse_protocol(name)


def test_centre_crop_rounds_down() -> None:
    frames = torch.arange(128 * 171).view(1, 1, 128, 171)
    cropped = centre_crop(frames, 112)
    assert cropped.shape == (1, 1, 112, 112)
    assert cropped[0, 0, 0, 0].item() == 8 * 171 + 29
    with pytest.raises(ConfigError, match="larger than the stored frames"):
        centre_crop(frames, 129)
