"""Perceptual hashes of a receiver's videos, kept in a folder so that no video is decoded twice.

A part is ``hashes-<id>.npy``, int64 [2, frames] (the bits of the times as float64, and of the
hashes as uint64), and ``hashes-<id>.json``, which is written last and says what is in it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distinit.pipeline.records import file_entry, read_record, write_record
from distinit.pipeline.storage import atomic_path, read_bounded
from distinit.schemas.base import Record, SealedRecord, Sha256
from distinit.schemas.errors import StorageError
from distinit.schemas.manifest import FileEntry

__all__ = ["CopyHashes", "read_parts", "write_part"]

_HEADER_BYTES = 4096  # at most, of a .npy file


@dataclass(frozen=True, slots=True)
class CopyHashes:
    """Hashes and presentation times of all frames of the file with this sha256, both [F]."""

    digest: str
    hash_F: NDArray[np.uint64]
    pts_seconds_F: NDArray[np.float64]


class _PartVideo(Record):
    """A video of a part. Videos follow each other in this order."""

    digest: Sha256 = Field(description="sha256 of the file")
    frame_count: int = Field(ge=1, description="number of its frames")


class _PartRecord(SealedRecord):
    """The record of one part."""

    videos: tuple[_PartVideo, ...] = Field(min_length=1, description="the videos of the part")
    file: FileEntry = Field(description="size and sha256 of the array")


def write_part(folder: Path, videos: Sequence[CopyHashes]) -> None:
    """Store the hashes of some videos. Raises StorageError."""
    digests = "\n".join(video.digest for video in videos)
    name = f"hashes-{hashlib.sha256(digests.encode()).hexdigest()[:16]}"
    times_F = np.concatenate([video.pts_seconds_F for video in videos]).view(np.int64)
    hashes_F = np.concatenate([video.hash_F for video in videos]).view(np.int64)
    array = folder / f"{name}.npy"
    with atomic_path(array) as partial, partial.open("wb") as file:
        np.save(file, np.stack([times_F, hashes_F]), allow_pickle=False)
    listed = tuple(_PartVideo(digest=v.digest, frame_count=len(v.hash_F)) for v in videos)
    record = _PartRecord(videos=listed, file=file_entry(array))
    write_record(record.sealed(), folder / f"{name}.json")


def read_parts(folder: Path) -> Iterator[tuple[CopyHashes, ...]]:
    """Yield the videos of each complete part; damaged parts are as good as absent."""
    for path in sorted(folder.glob("hashes-*.json")):
        try:
            record = read_record(path, _PartRecord, error=StorageError, remedy="delete it")
            values = _read_array(path.with_suffix(".npy"), record)
        except (StorageError, OSError, ValueError, EOFError):
            continue
        yield tuple(_videos_of(record, values))


def _read_array(path: Path, record: _PartRecord) -> NDArray[np.int64]:
    """The array of a part. Raises ValueError if it is not what the record says, OSError."""
    count = sum(video.frame_count for video in record.videos)
    limit_bytes = _HEADER_BYTES + 16 * count
    data = read_bounded(path, min(limit_bytes, record.file.size))
    found = (len(data), hashlib.sha256(data).hexdigest())
    if not record.is_intact or found != (record.file.size, record.file.sha256):
        raise ValueError("not the array that was written")
    values: NDArray[np.int64] = np.load(io.BytesIO(data), allow_pickle=False)
    if values.dtype != np.int64 or values.shape != (2, count):
        raise ValueError(f"{values.dtype} {values.shape}")
    return values


def _videos_of(record: _PartRecord, values: NDArray[np.int64]) -> Iterator[CopyHashes]:
    first = 0
    for video in record.videos:
        frames = slice(first, first + video.frame_count)
        hash_F, pts_seconds_F = values[1, frames], values[0, frames]
        yield CopyHashes(video.digest, hash_F.view(np.uint64), pts_seconds_F.view(np.float64))
        first += video.frame_count
