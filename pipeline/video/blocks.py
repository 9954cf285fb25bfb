"""Blocks of frames: read from a pipe into memory of their own, with bounded look-ahead."""

from __future__ import annotations

import queue
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.video.pipes import Pipe
from distinit.pipeline.video.process import FFmpegProcess

__all__ = ["FrameBlock", "FrameReader"]

_HANDOVER_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class FrameBlock:
    """Consecutive frames of one video.

    pts_N        int64 timestamps in units of the stream's time base, as in the source
    hash_N       uint64 perceptual hashes (``hashing``)
    views        name -> uint8 [N, height, width, 3] RGB
    """

    first_index: int
    pts_N: NDArray[np.int64]
    hash_N: NDArray[np.uint64]
    views: Mapping[str, NDArray[np.uint8]]

    def __post_init__(self) -> None:
        frames = len(self.pts_N)
        if self.hash_N.shape != (frames,) or any(
            view.ndim != 4 or view.shape[0] != frames or view.shape[3] != 3
            for view in self.views.values()
        ):
            raise ValueError("timestamps, hashes and views must have one entry a frame")

    def __len__(self) -> int:
        return len(self.pts_N)


class _Recycler:
    """Memory of blocks, used again once nothing refers to the block any more.

    Fresh memory costs a page fault every 4 KiB: more time than reading the frames into it.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._free: list[NDArray[np.uint8]] = []

    def block(self) -> NDArray[np.uint8]:
        """An array of ``shape`` with arbitrary content."""
        memory = self._free.pop() if self._free else np.empty(self._shape, dtype=np.uint8)
        # Slices, reshapes and tensors of the array all refer to it: numpy does not look
        # through an array whose memory belongs to something that is no array.
        array = np.frombuffer(memoryview(memory).cast("B"), dtype=np.uint8)
        weakref.finalize(array, self._free.append, memory)
        return array.reshape(self._shape)


class FrameReader:
    """Reads one rawvideo pipe into blocks, in a thread of its own, one or more of them ahead.

    ``torn`` tells that the output ended within a frame.
    """

    def __init__(self, process: FFmpegProcess, pipe: Pipe) -> None:
        self.torn = False
        self._process = process
        self._pipe = pipe
        self._blocks: queue.Queue[NDArray[np.uint8] | None] = queue.Queue(maxsize=1)

    def start(
        self, name: str, frame_shape: tuple[int, ...], block_frames: int, ahead_bytes: int
    ) -> None:
        """Begin to read frames of this shape (uint8): one block ahead, more if they fit."""
        block_bytes = int(np.prod(frame_shape)) * block_frames
        self._blocks = queue.Queue(maxsize=max(1, ahead_bytes // block_bytes))
        self._process.run_thread(self._read, f"ffmpeg-{name}", frame_shape, block_frames)

    def next_block(self) -> NDArray[np.uint8] | None:
        """The next frames; None at the end."""
        return self._blocks.get()

    def _read(self, frame_shape: tuple[int, ...], block_frames: int) -> None:
        frame_bytes = int(np.prod(frame_shape))
        recycler = _Recycler((block_frames, *frame_shape))
        ended = False
        try:
            while not ended:
                block = recycler.block()
                filled = self._pipe.readinto(memoryview(block).cast("B"))
                frames, rest = divmod(filled, frame_bytes)
                self.torn = rest > 0
                ended = frames < block_frames
                if frames:
                    self._hand_over(block[:frames])
        finally:  # even out of memory: who waits for a block must not wait for ever
            self._hand_over(None)

    def _hand_over(self, block: NDArray[np.uint8] | None) -> None:
        while not self._process.stopping:
            try:
                self._blocks.put(block, timeout=_HANDOVER_SECONDS)
                return
            except queue.Full:
                continue
