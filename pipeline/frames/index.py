"""Finds the unit file and row of a frame, in memory-mapped columns.

There is no Python object per video or frame, so that a store of any size opens quickly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path

import numpy as np

from distinit.pipeline.derived import find_texts, map_column
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import BatchLocation

__all__ = ["BATCH_LOCATION", "DigestMap", "StoreIndex", "StoredVideo", "VideoMap"]

BATCH_LOCATION = np.dtype([(name, np.int64) for name in BatchLocation.model_fields])
"""Byte offsets in a unit's file; see ``schemas.frames.BatchLocation``."""


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """A whole video in a frame store."""

    video_id: str
    digest: str
    frame_count: int
    height: int  # pixels, as stored
    width: int
    fps: float  # mean frames per second of the source; 0 if unknown


@dataclass(frozen=True)
class StoreIndex:
    """Columns about all videos [V], their VideoRows [R], units [U] and record batches [B].

    The VideoRows are sorted by (video, first frame). All columns are memory-mapped; ``derive``
    writes them, one file per field.
    """

    video_ids_V: np.ndarray  # bytes, sorted
    digests_V: np.ndarray  # bytes
    digest_order_V: np.ndarray  # int64, sorts digests_V
    heights_V: np.ndarray  # int32, pixels
    widths_V: np.ndarray  # int32, pixels
    fps_V: np.ndarray  # float64
    frame_count_V: np.ndarray  # int64
    rows_start_V: np.ndarray  # int64 [V+1]: the VideoRows of video v are [v] .. [v+1]-1
    first_frame_R: np.ndarray  # int64
    first_row_R: np.ndarray  # int64, within the unit
    unit_R: np.ndarray  # int64
    failed_digests_F: np.ndarray  # bytes, sorted: of the videos that could not be decoded
    units_U: np.ndarray  # int64, ascending
    file_bytes_U: np.ndarray  # int64: size of each unit's file
    batch_start_U: np.ndarray  # int64 [U+1]: the batches of unit u are [u] .. [u+1]-1
    batches_B: np.ndarray  # BATCH_LOCATION: where each record batch is in its unit's file

    @classmethod
    def open(cls, folder: Path) -> StoreIndex:
        """Map the columns in ``folder``. Raises StorageError if one cannot be read."""
        return cls(*(map_column(folder, field.name) for field in fields(cls)))

    def number_of(self, video_id: str) -> int:
        """The number of a video, its position in the columns [V]; -1 if it is not stored."""
        return _find(self.video_ids_V, video_id)

    def video(self, number: int) -> StoredVideo:
        """The video with this number."""
        return StoredVideo(
            video_id=self.video_ids_V[number].decode(),
            digest=self.digests_V[number].decode(),
            frame_count=int(self.frame_count_V[number]),
            height=int(self.heights_V[number]),
            width=int(self.widths_V[number]),
            fps=float(self.fps_V[number]),
        )

    def batches_of(self, unit: int) -> tuple[int, np.ndarray]:
        """(size of a unit's file in bytes, BATCH_LOCATION of each of its batches)."""
        position = int(self.units_U.searchsorted(unit))
        begin, end = self.batch_start_U[position], self.batch_start_U[position + 1]
        return int(self.file_bytes_U[position]), self.batches_B[begin:end]

    def locate(self, number: int, frame_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(unit [N], row within the unit [N]) of the frames with these indices of one video.

        Raises FrameStoreError for an index that the video does not have.
        """
        frame_count = int(self.frame_count_V[number])
        if frame_N.size and (frame_N.min() < 0 or frame_N.max() >= frame_count):
            raise FrameStoreError(
                f"video {self.video_ids_V[number].decode()} has no such frame",
                expected=f"indices 0 .. {frame_count - 1}",
                found=f"{frame_N.min()} .. {frame_N.max()}",
            )
        begin, end = self.rows_start_V[number], self.rows_start_V[number + 1]
        at_N = begin + self.first_frame_R[begin:end].searchsorted(frame_N, "right") - 1
        return self.unit_R[at_N], self.first_row_R[at_N] + frame_N - self.first_frame_R[at_N]


class VideoMap(Mapping[str, StoredVideo]):
    """video_id -> StoredVideo; values are created on access."""

    def __init__(self, index: StoreIndex) -> None:
        self._index = index

    def __getitem__(self, video_id: str) -> StoredVideo:
        number = self._index.number_of(video_id)
        if number < 0:
            raise KeyError(video_id)
        return self._index.video(number)

    def __iter__(self) -> Iterator[str]:
        return (video_id.decode() for video_id in self._index.video_ids_V)

    def __len__(self) -> int:
        return len(self._index.video_ids_V)


class DigestMap(Mapping[str, str]):
    """sha256 of a video file -> id of the (first) video with these bytes."""

    def __init__(self, index: StoreIndex) -> None:
        self._index = index

    def __getitem__(self, digest: str) -> str:
        number = int(self.numbers_of(np.array([digest.encode()]))[0])
        if number < 0:
            raise KeyError(digest)
        video_id: bytes = self._index.video_ids_V[number]
        return video_id.decode()

    def numbers_of(self, digests_N: np.ndarray) -> np.ndarray:
        """Numbers (int64 [N]) of the (first) videos with these digests (bytes); -1: not stored."""
        order_V = self._index.digest_order_V
        position_N, found_N = find_texts(self._index.digests_V, digests_N, order_V)
        number_N = np.full(len(digests_N), -1, np.int64)
        number_N[found_N] = order_V[position_N[found_N]]
        return number_N

    def __iter__(self) -> Iterator[str]:
        ordered = (self._index.digests_V[number] for number in self._index.digest_order_V)
        return (digest.decode() for digest, _ in groupby(ordered))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _find(sorted_bytes_N: np.ndarray, text: str) -> int:
    """Position of one text, or -1. As ``find_texts``, but several times faster for one text."""
    key = text.encode()
    if len(key) > sorted_bytes_N.dtype.itemsize:
        return -1
    position = int(np.searchsorted(sorted_bytes_N, np.array(key, sorted_bytes_N.dtype)))
    found = position < len(sorted_bytes_N) and sorted_bytes_N[position] == key
    return position if found else -1
