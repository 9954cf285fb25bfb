"""Picks the clips of a test video to score: N evenly spaced ones (VMZ), or every N-th start."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distinit.schemas.errors import ConfigError

__all__ = ["ClipProtocol", "centre_crop", "clip_indices", "parse_protocol", "protocol_clip_starts"]

_NAME = re.compile(r"(?P<kind>vmz-|dense-s)(?P<number>[1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class ClipProtocol:
    """``vmz-N``: N evenly spaced clips per video. ``dense-sN``: a clip at every N-th frame."""

    kind: Literal["vmz", "dense"]
    number: int
    """N"""

    @property
    def clips_of_failed(self) -> int:
        """How many clips count as wrong for a video that could not be decoded."""
        return self.number if self.kind == "vmz" else 1


def parse_protocol(name: str) -> ClipProtocol:
    """Read ``vmz-10`` or ``dense-s4``. Raises ConfigError for anything else."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(
            f"unknown evaluation protocol {name!r}", expected="vmz-N or dense-sN, such as vmz-10"
        )
    return ClipProtocol("vmz" if match["kind"] == "vmz-" else "dense", int(match["number"]))


def protocol_clip_starts(
    protocol: ClipProtocol, frame_count: int, frames: int
) -> NDArray[np.int64]:
    """First frames [clips] of the clips of a video that has ``frame_count`` frames.

    ``frames`` is the length of a clip. ``vmz-N``: floor(i * (frame_count - frames) / (N - 1)) for
    i < N, which repeats starts in short videos; ``vmz-1`` is the middle clip. In a video that is
    shorter than a clip, all clips start at 0.
    """
    last = max(0, frame_count - frames)
    if protocol.kind == "dense":
        return np.arange(0, last + 1, protocol.number, dtype=np.int64)
    if protocol.number == 1:
        return np.array([last // 2], np.int64)
    return np.arange(protocol.number, dtype=np.int64) * last // (protocol.number - 1)


def clip_indices(start: int, frame_count: int, frames: int) -> NDArray[np.int64]:
    """Frame indices [frames] of one clip; a short video is repeated."""
    return (start + np.arange(frames, dtype=np.int64)) % frame_count


def centre_crop(frames_TCHW: Tensor, crop: int) -> Tensor:
    """The central ``crop`` x ``crop`` pixels; offsets are rounded down, as in VMZ.

    Raises ConfigError if the frames are smaller than the crop.
    """
    height, width = frames_TCHW.shape[-2:]
    if crop > min(height, width):
        raise ConfigError(
            "the crop is larger than the stored frames",
            expected=f"at most {min(height, width)} pixels",
            found=f"{crop}",
            remedy="lower clip.crop, or build a frame store with a larger short edge",
        )
    top, left = (height - crop) // 2, (width - crop) // 2
    return frames_TCHW[..., top : top + crop, left : left + crop]
