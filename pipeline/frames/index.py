"""Which row of which unit file holds a frame: mapped columns, not an object per video or frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path

import numpy as np

from distinit.pipeline.derived import find_texts, map_column
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import BatchPlace

__all__ = ["BATCH_PLACE", "DigestMap", "RunIndex", "StoredVideo", "VideoMap"]

BATCH_PLACE = np.dtype([(name, np.int64) for name in BatchPlace.model_fields])
"""Bytes from the beginning of a unit's file: see schemas.frames.BatchPlace."""


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """One whole video of a frame store."""

    video_id: str
    digest: str
    frame_count: int
    height: int  # pixels, as stored
    width: int
    fps: float  # mean frames per second of the source; 0 if unknown


@dataclass(frozen=True)
class RunIndex:
    """Runs of all videos [R], sorted by (video, first frame), and the videos themselves [V].

    Memory-mapped; derive.py writes the columns, one file for each field.
    """

    video_ids_V: np.ndarray  # bytes, sorted
    digests_V: np.ndarray  # bytes
    digest_order_V: np.ndarray  # int64, sorts digests_V
    heights_V: np.ndarray  # int32, pixels
    widths_V: np.ndarray  # int32, pixels
    fps_V: np.ndarray  # float64
    frame_count_V: np.ndarray  # int64
    run_start_V: np.ndarray  # int64 [V+1]: video v has runs run_start[v] .. run_start[v+1]-1
    first_frame_R: np.ndarray  # int64
    first_row_R: np.ndarray  # int64, within the unit
    unit_R: np.ndarray  # int64
    failed_digests_F: np.ndarray  # bytes, sorted: of the videos that are not there
    units_U: np.ndarray  # int64, ascending
    file_bytes_U: np.ndarray  # int64: size of each unit's file
    batch_start_U: np.ndarray  # int64 [U+1]: unit u has batches batch_start[u] .. [u+1]-1
    batches_B: np.ndarray  # BATCH_PLACE: where the columns of each record batch lie

    @classmethod
    def open(cls, folder: Path) -> RunIndex:
        """Map the columns in ``folder``."""
        return cls(*(map_column(folder, field.name) for field in fields(cls)))

    def number_of(self, video_id: str) -> int:
        """Position of a video in the arrays; -1 if it is not there."""
        return _find(self.video_ids_V, video_id)

    def info(self, number: int) -> StoredVideo:
        """One video."""
        return StoredVideo(
            video_id=self.video_ids_V[number].decode(),
            digest=self.digests_V[number].decode(),
            frame_count=int(self.frame_count_V[number]),
            height=int(self.heights_V[number]),
            width=int(self.widths_V[number]),
            fps=float(self.fps_V[number]),
        )

    def batches_of(self, unit: int) -> tuple[int, np.ndarray]:
        """(size of a unit's file in bytes, BATCH_PLACE of each of its batches)."""
        place = int(self.units_U.searchsorted(unit))
        begin, end = self.batch_start_U[place], self.batch_start_U[place + 1]
        return int(self.file_bytes_U[place]), self.batches_B[begin:end]

    def locate(self, number: int, frames_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(unit [N], row within the unit [N]) of frames of one video.

        Raises FrameStoreError for frames the video does not have.
        """
        frame_count = int(self.frame_count_V[number])
        if frames_N.size and (frames_N.min() < 0 or frames_N.max() >= frame_count):
            raise FrameStoreError(
                f"video {self.video_ids_V[number].decode()} has no such frame",
                expected=f"indices 0 .. {frame_count - 1}",
                found=f"{frames_N.min()} .. {frames_N.max()}",
            )
        begin, end = self.run_start_V[number], self.run_start_V[number + 1]
        run_N = begin + self.first_frame_R[begin:end].searchsorted(frames_N, "right") - 1
        return self.unit_R[run_N], self.first_row_R[run_N] + frames_N - self.first_frame_R[run_N]


class VideoMap(Mapping[str, StoredVideo]):
    """video_id -> StoredVideo, made when asked for."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index

    def __getitem__(self, video_id: str) -> StoredVideo:
        number = self._index.number_of(video_id)
        if number < 0:
            raise KeyError(video_id)
        return self._index.info(number)

    def __iter__(self) -> Iterator[str]:
        return (video_id.decode() for video_id in self._index.video_ids_V)

    def __len__(self) -> int:
        return len(self._index.video_ids_V)


class DigestMap(Mapping[str, str]):
    """sha256 of a video file -> the (first) video_id with these bytes."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index

    def __getitem__(self, digest: str) -> str:
        number = int(self.numbers_of(np.array([digest.encode()]))[0])
        if number < 0:
            raise KeyError(digest)
        video_id: bytes = self._index.video_ids_V[number]
        return video_id.decode()

    def numbers_of(self, digests_N: np.ndarray) -> np.ndarray:
        """Numbers (int64 [N]) of the (first) videos with these digests (bytes); -1: none."""
        order_V = self._index.digest_order_V
        place_N, known_N = find_texts(self._index.digests_V, digests_N, order_V)
        number_N = np.full(len(digests_N), -1, np.int64)
        number_N[known_N] = order_V[place_N[known_N]]
        return number_N

    def __iter__(self) -> Iterator[str]:
        ordered = (self._index.digests_V[number] for number in self._index.digest_order_V)
        return (digest.decode() for digest, _ in groupby(ordered))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _find(sorted_bytes_N: np.ndarray, text: str) -> int:
    """``find_texts`` of one, several times faster; -1: not there."""
    wanted = text.encode()
    if len(wanted) > sorted_bytes_N.dtype.itemsize:
        return -1
    place = int(np.searchsorted(sorted_bytes_N, np.array(wanted, sorted_bytes_N.dtype)))
    return place if place < len(sorted_bytes_N) and sorted_bytes_N[place] == wanted else -1
