"""Decodes the frames that were drawn, from the videos of the receiver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from distinit.pipeline.corpus.listing import Corpus
from distinit.pipeline.video.decode import open_video
from distinit.pipeline.video.views import View
from distinit.schemas.corpus import VideoFile
from distinit.schemas.video import DecodeConfig

__all__ = ["DecodedFrame", "frames_of", "videos_by_digest"]

_BLOCK_FRAMES = 16


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One frame: its time as (pts, time base), perceptual hash, and view -> uint8 [1, H, W, 3]."""

    index: int
    pts: int
    time_base: str
    perceptual_hash: int
    views: Mapping[str, np.ndarray]


def videos_by_digest(corpus: Corpus) -> dict[str, VideoFile]:
    """The videos of a corpus by the sha256 of their bytes."""
    return {file.digest: file for file in corpus.files}


def frames_of(
    corpus: Corpus, file: VideoFile, frame_N: np.ndarray, views: Mapping[str, View]
) -> Iterator[DecodedFrame]:
    """The frames with the indices ``frame_N``, ascending; fewer if the video ends before.

    Decoding stops after the last of them. Raises DecodeError for a video that cannot be decoded.
    """
    wanted, last = set(frame_N.tolist()), int(frame_N[-1])
    with (
        corpus.source.open(file.path, file.digest) as path,
        open_video(path, views, DecodeConfig(), block_frames=_BLOCK_FRAMES) as stream,
    ):
        for block in stream:
            for place in range(len(block.pts_N)):
                index = block.first_index + place
                if index in wanted:
                    yield DecodedFrame(
                        index,
                        int(block.pts_N[place]),
                        stream.time_base,
                        int(block.hash_N[place]),
                        {name: view[place : place + 1] for name, view in block.views.items()},
                    )
            if block.first_index + len(block.pts_N) > last:
                break
    corpus.source.check_unchanged(file)
