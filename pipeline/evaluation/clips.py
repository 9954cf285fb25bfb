"""Which clips of a test video are scored: VMZ's evenly spaced ones, or every N-th start."""

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
    """``vmz-N``: N evenly spaced clips a video. ``dense-sN``: a clip at every N-th frame."""

    kind: Literal["vmz", "dense"]
    number: int

    @property
    def clips_of_failed(self) -> int:
        """Clips that count as wrong for a video that cannot be decoded."""
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
    """First frames of the clips of ``frames`` frames, of a video of ``frame_count`` frames.

    ``vmz-N``: floor(i * (frame_count - frames) / (N - 1)), always N of them, which repeat in
    short videos; ``vmz-1`` is the middle clip. A video shorter than a clip starts at 0.
    """
    last = max(0, frame_count - frames)
    if protocol.kind == "dense":
        return np.arange(0, last + 1, protocol.number, dtype=np.int64)
    if protocol.number == 1:
        return np.array([last // 2], np.int64)
    return np.arange(protocol.number, dtype=np.int64) * last // (protocol.number - 1)


def clip_indices(start: int, frame_count: int, frames: int) -> NDArray[np.int64]:
    """Frame indices [frames] of one clip; a short video loops."""
    return (start + np.arange(frames, dtype=np.int64)) % frame_count


def centre_crop(frames_TCHW: Tensor, crop: int) -> Tensor:
    """The middle ``crop`` x ``crop`` pixels; offsets rounded down, as in VMZ."""
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
