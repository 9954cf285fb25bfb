"""Samples decoded blocks of frames and joins them into batches for the teachers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from distinit.pipeline.video.decode import FrameBlock
from distinit.pipeline.video.sampling import Sampler
from distinit.schemas.video import SamplingConfig

__all__ = ["MAX_BATCH_BYTES", "FrameBatch", "FrameBatcher"]

MAX_BATCH_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Sampled frames of one video: the input of one forward pass.

    ``views``: name -> pixels, uint8 NHWC.
    """

    index_N: np.ndarray
    pts_N: np.ndarray
    hash_N: np.ndarray
    views: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, block: FrameBlock, keep_N: np.ndarray, names: Collection[str]) -> FrameBatch:
        """The frames of ``block`` with indices ``keep_N``, in the views called ``names``."""
        views = {name: view for name, view in block.views.items() if name in names}
        if len(keep_N) == len(block.pts_N):
            return cls(keep_N, block.pts_N, block.hash_N, views)
        offset_N = keep_N - block.first_index
        picked = {name: view[offset_N] for name, view in views.items()}
        return cls(keep_N, block.pts_N[offset_N], block.hash_N[offset_N], picked)

    @classmethod
    def joined(cls, parts: list[FrameBatch]) -> FrameBatch:
        """Concatenate ``parts``."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([p.index_N for p in parts]),
            np.concatenate([p.pts_N for p in parts]),
            np.concatenate([p.hash_N for p in parts]),
            {n: np.concatenate([p.views[n] for p in parts]) for n in parts[0].views},
        )

    def cut(self, start: int, stop: int) -> FrameBatch:
        """Frames ``start .. stop - 1``."""
        views = {name: view[start:stop] for name, view in self.views.items()}
        part = slice(start, stop)
        return FrameBatch(self.index_N[part], self.pts_N[part], self.hash_N[part], views)

    def without_views(self) -> FrameBatch:
        """The batch without its pixels, which the cache does not store; this frees their memory."""
        return replace(self, views={})


class FrameBatcher:
    """Sampled frames in batches of exactly ``size`` (the last one may be shorter).

    Batches are smaller where ``size`` frames of a view would exceed 16 MiB: the memory of a worker
    must not grow with the size of the frames. No batch holds frames of two videos, so a frame's
    logits never depend on the other videos of its unit.
    """

    def __init__(
        self, sampling: SamplingConfig, frame_count: int, size: int, views: Collection[str]
    ) -> None:
        """``frame_count``: frames of the video, exact or probed; used by mode per_video."""
        self._sampler = Sampler(sampling, frame_count)
        self._size = size
        self._views = views
        self._held: list[FrameBatch] = []

    def push(self, block: FrameBlock, time_base: str) -> Iterator[FrameBatch]:
        """Add the next block of the video; yield the batches that are full now."""
        keep_N = self._sampler.pick(block.pts_N, Fraction(time_base))
        if len(keep_N) == 0:
            return
        self._held.append(FrameBatch.of(block, keep_N, self._views))
        size = self._size_of(self._held[0])
        if sum(len(part.pts_N) for part in self._held) < size:
            return
        joined = FrameBatch.joined(self._held)
        count = len(joined.pts_N)
        full = count - count % size
        # Drop the parts before yielding: their memory is then free for the next block.
        self._held = [joined.cut(full, count)] if full < count else []
        for start in range(0, full, size):
            yield joined.cut(start, start + size)

    def _size_of(self, batch: FrameBatch) -> int:
        largest = max((view[0].nbytes for view in batch.views.values()), default=1)
        return max(1, min(self._size, MAX_BATCH_BYTES // largest))

    def rest(self) -> Iterator[FrameBatch]:
        """The last, shorter batch, if any."""
        if self._held:
            yield FrameBatch.joined(self._held)
