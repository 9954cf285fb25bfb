"""The protocols of VMZ and PySlowFast: which clips of a test video to score, and their crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distinit.schemas.errors import ConfigError
from distinit.schemas.evaluation import PROTOCOL, PROTOCOL_NAMES, protocol_remedy
from distinit.schemas.wording import shown

__all__ = [
    "ClipProtocol",
    "clip_indices",
    "parse_protocol",
    "protocol_clip_starts",
    "protocol_crops",
]


@dataclass(frozen=True, slots=True)
class ClipProtocol:
    """Which clips of a video count.

    ``vmz-N``: N evenly spaced clips per video. ``dense-sN``: a clip at every N-th frame.
    ``slowfast-TxS``: T evenly spaced clips, each with S (1 or 3) crops.
    """

    kind: Literal["vmz", "dense", "slowfast"]
    number: int
    """N or T"""
    crops: int = 1
    """S"""

    @property
    def clips_of_failed(self) -> int:
        """How many clips count as wrong for a video that could not be decoded."""
        return 1 if self.kind == "dense" else self.number * self.crops


def parse_protocol(name: str) -> ClipProtocol:
    """Read a name such as ``vmz-10``. Raises ConfigError for anything else."""
    match = PROTOCOL.fullmatch(name)
    if match is None:
        raise ConfigError(
            f"unknown evaluation protocol {shown(name)}",
            expected=f"{PROTOCOL_NAMES}, such as vmz-10",
            remedy=protocol_remedy(name),
        )
    if match["vmz"]:
        return ClipProtocol("vmz", int(match["vmz"]))
    if match["dense"]:
        return ClipProtocol("dense", int(match["dense"]))
    return ClipProtocol("slowfast", int(match["slowfast"]), int(match["crops"]))


def protocol_clip_starts(
    protocol: ClipProtocol, frame_count: int, frames: int
) -> NDArray[np.int64]:
    """First frames [clips] of the clips of a video that has ``frame_count`` frames.

    ``frames`` is the length of a clip. ``vmz-N``: floor(i * (frame_count - frames) / (N - 1)) for
    i < N, which repeats starts in short videos; ``vmz-1`` is the middle clip. ``slowfast-TxS``:
    floor(i * (frame_count - frames) / T) for i < T, so the last clip ends before the video does, as
    in PySlowFast (``get_start_end_idx`` and ``temporal_sampling`` in datasets/decoder.py, with
    DATA.USE_OFFSET_SAMPLING off, its default). In a video that is shorter than a clip, all clips
    start at 0; PySlowFast then repeats its last frame, while here the video is repeated, as in
    training.
    """
    last = max(0, frame_count - frames)
    if protocol.kind == "dense":
        return np.arange(0, last + 1, protocol.number, dtype=np.int64)
    if protocol.kind == "slowfast":
        return np.arange(protocol.number, dtype=np.int64) * last // protocol.number
    if protocol.number == 1:
        return np.array([last // 2], np.int64)
    return np.arange(protocol.number, dtype=np.int64) * last // (protocol.number - 1)


def protocol_crops(
    protocol: ClipProtocol, height: int, width: int, crop: int
) -> list[tuple[int, int]]:
    """(top, left) of each crop of ``crop`` x ``crop`` pixels of a clip, in pixels.

    ``vmz-N`` and ``dense-sN``: the centre, rounded down (VMZ). ``slowfast-TxS``: the centre,
    rounded up; with three crops also both ends of the longer side, as in PySlowFast
    (``uniform_crop`` in datasets/transform.py). The longer side of square frames is the width.
    Crops that coincide are listed as often as the protocol has them. PySlowFast first scales the
    shorter side to the size of the crop. Stored frames are not scaled: for the same crops, store
    them with that short edge.

    Raises ConfigError if the frames are smaller than the crop.
    """
    if crop > min(height, width):
        raise ConfigError(
            "the crop is larger than the stored frames",
            expected=f"at most {min(height, width)} pixels",
            found=f"{crop}",
            remedy="lower clip.crop, or build a frame store with a larger short edge",
        )
    if protocol.kind != "slowfast":
        return [((height - crop) // 2, (width - crop) // 2)]
    top, left = (height - crop + 1) // 2, (width - crop + 1) // 2
    if protocol.crops == 1:
        return [(top, left)]
    if height > width:
        return [(0, left), (top, left), (height - crop, left)]
    return [(top, 0), (top, left), (top, width - crop)]


def clip_indices(start: int, frame_count: int, frames: int) -> NDArray[np.int64]:
    """Frame indices [frames] of one clip; a short video is repeated."""
    return (start + np.arange(frames, dtype=np.int64)) % frame_count
