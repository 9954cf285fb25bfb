"""Finds blurred and black videos by the pixels of a few of their frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.frames.reader import FrameStore

__all__ = ["BLURRED_VARIANCE", "DARK_LEVEL", "blurred_and_dark", "sharpness"]

BLURRED_VARIANCE = 15.0
"""Of the Laplacian, in levels of 0..255: below it, the sharpest of a video's frames is blurred."""
DARK_LEVEL = 12.0
"""Mean brightness in levels of 0..255: below it, a frame is black."""
_FRAMES = 3
_MOST_VIDEOS = 2_000  # evenly spaced; 5 ms each
_LUMA = (0.299, 0.587, 0.114)


def blurred_and_dark(store: FrameStore, video_ids: Sequence[str]) -> tuple[list[int], list[int]]:
    """(blurred, dark) videos, as positions in ``video_ids``; those that are not stored are skipped.

    Of many videos, evenly spaced ones are looked at. Raises FrameStoreError for damaged frames.
    """
    blurred, dark = [], []
    for place, grays in _sampled(store, video_ids):
        if max(float(gray_HW.mean()) for gray_HW in grays) < DARK_LEVEL:
            dark.append(place)
        elif max(map(sharpness, grays)) < BLURRED_VARIANCE:
            blurred.append(place)
    return blurred, dark


def _sampled(
    store: FrameStore, video_ids: Sequence[str]
) -> Iterator[tuple[int, list[NDArray[np.float32]]]]:
    places = [place for place, video_id in enumerate(video_ids) if video_id in store.videos]
    luma = np.array(_LUMA, np.float32)
    for place in places[:: max(1, -(-len(places) // _MOST_VIDEOS))]:
        count = store.videos[video_ids[place]].frame_count
        frames = np.unique((2 * np.arange(_FRAMES) + 1) * count // (2 * _FRAMES))
        frames_THWC = store.frames(video_ids[place], frames)
        yield place, [(frame.astype(np.float32) @ luma) for frame in frames_THWC]


def sharpness(gray_HW: NDArray[np.float32]) -> float:
    """Variance of the Laplacian of a picture of at least 3 x 3 pixels, in squared levels."""
    middle = gray_HW[1:-1, 1:-1]
    rows, columns = (gray_HW[:-2, 1:-1] + gray_HW[2:, 1:-1]), gray_HW[1:-1, :-2] + gray_HW[1:-1, 2:]
    return float(np.var(rows + columns - 4 * middle))
