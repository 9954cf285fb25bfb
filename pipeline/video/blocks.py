"""Blocks of frames, read from pipes in threads, with bounded read-ahead."""

from __future__ import annotations

import queue
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.video.pipes import Pipe
from distinit.pipeline.video.process import FFmpegProcess
from distinit.schemas.wording import shown

__all__ = ["FrameBlock", "FrameReader"]

_QUEUE_SECONDS = 0.2  # after which a thread that waits checks whether it must end


@dataclass(frozen=True, slots=True)
class FrameBlock:
    """Consecutive frames of one video.

    first_index  index of the first frame in the video, from 0
    pts_N        int64 timestamps in units of the stream's time base, as in the source
    hash_N       uint64 perceptual hashes (``hashing``)
    views        name -> uint8 [N, height, width, 3] RGB

    Raises ValueError if the shapes do not agree.
    """

    first_index: int
    pts_N: NDArray[np.int64]
    hash_N: NDArray[np.uint64]
    views: Mapping[str, NDArray[np.uint8]]

    def __post_init__(self) -> None:
        frame_count = len(self.pts_N)
        if self.hash_N.shape != (frame_count,):
            raise ValueError(
                f"the hashes of a block must have shape ({frame_count},), one per timestamp, "
                f"not {self.hash_N.shape}"
            )
        for name, view in self.views.items():
            if view.ndim != 4 or view.shape[0] != frame_count or view.shape[3] != 3:
                raise ValueError(
                    f"view {shown(name)} of a block must have shape ({frame_count}, height, width, "
                    f"3), one frame per timestamp, not {view.shape}"
                )

    def __len__(self) -> int:
        return len(self.pts_N)


class _BlockMemory:
    """Memory for blocks, reused once nothing refers to a block any more.

    New memory costs a page fault every 4 KiB, which takes longer than reading the frames into it.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._free: list[NDArray[np.uint8]] = []

    def new_block(self) -> NDArray[np.uint8]:
        """An array of ``shape`` with arbitrary content."""
        memory = self._free.pop() if self._free else np.empty(self._shape, dtype=np.uint8)
        # Slices, reshapes and tensors of this array all keep it alive, because the owner of its
        # memory is a memoryview: numpy shortens a chain of bases only through arrays.
        array = np.frombuffer(memoryview(memory).cast("B"), dtype=np.uint8)
        weakref.finalize(array, self._free.append, memory)
        return array.reshape(self._shape)


class FrameReader:
    """Reads raw frames from one pipe into blocks, in a thread that starts at once.

    It reads one block ahead, or as many as fit into ``ahead_bytes``. ``torn`` is True if the
    output ended in the middle of a frame.

    Args:
        process: The ffmpeg that writes; the thread ends with it.
        pipe: Where it writes frames as uint8 arrays of ``frame_shape``, one after the other.
        name: Name of the view, for the thread's name.
        frame_shape: (height, width, 3) or (height, width).
        block_frames: Frames per block.
        ahead_bytes: Bytes to read ahead.
    """

    def __init__(
        self,
        process: FFmpegProcess,
        pipe: Pipe,
        name: str,
        frame_shape: tuple[int, ...],
        block_frames: int,
        ahead_bytes: int,
    ) -> None:
        self.torn = False
        self._process = process
        self._pipe = pipe
        self._frame_bytes = int(np.prod(frame_shape))
        self._block_frames = block_frames
        self._memory = _BlockMemory((block_frames, *frame_shape))
        self._blocks: queue.Queue[NDArray[np.uint8] | None] = queue.Queue(
            maxsize=max(1, ahead_bytes // (self._frame_bytes * block_frames))
        )
        process.run_thread(self._read, f"ffmpeg-{name}")

    def next_block(self) -> NDArray[np.uint8] | None:
        """The next frames; None at the end, and once the process is being closed."""
        while not self._process.stopping:
            try:
                return self._blocks.get(timeout=_QUEUE_SECONDS)
            except queue.Empty:
                continue
        return None

    def _read(self) -> None:
        ended = False
        try:
            while not ended:
                block = self._memory.new_block()
                filled = self._pipe.readinto(memoryview(block).cast("B"))
                frame_count, rest = divmod(filled, self._frame_bytes)
                self.torn = rest > 0
                ended = frame_count < self._block_frames
                if frame_count:
                    self._put(block[:frame_count])
        finally:  # even when out of memory: a consumer must not wait forever
            self._put(None)

    def _put(self, block: NDArray[np.uint8] | None) -> None:
        while not self._process.stopping:
            try:
                self._blocks.put(block, timeout=_QUEUE_SECONDS)
                return
            except queue.Full:
                continue
