"""Reads frames from a frame store: memory-mapped JPEGs, at a constant cost per clip."""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distinit.pipeline.frames.commits import (
    check_size,
    commits_key,
    damaged_unit,
    present_units,
    read_commits,
    read_manifest,
)
from distinit.pipeline.frames.derive import open_store_index
from distinit.pipeline.frames.index import DigestMap, StoredVideo, StoreIndex, VideoMap
from distinit.pipeline.frames.jpeg import check_headers, decode_frames
from distinit.pipeline.frames.layout import ROWS_PER_BATCH, StoreLayout
from distinit.pipeline.frames.rows import frame_checksum, video_checksum
from distinit.pipeline.open_files import files_at_once
from distinit.pipeline.storage import open_regular
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import FrameGeometry, FrameStoreManifest, StoreCommit, UndecodableVideo

__all__ = ["FrameStore"]

_RGB = 3  # channels
# Upper bounds for the size of a stored JPEG: tables and comments, and noise at the best quality.
_HEADER_BYTES, _BYTES_PER_PIXEL = 1 << 16, 8
# In an Arrow binary column: where a row begins and ends.
_OFFSETS = struct.Struct("<2i")
_CHECKSUM = struct.Struct("<I")


class FrameStore:
    """A frame store on disk. Open one with ``FrameStore.open``.

    It can be shared between threads, pickled, and used after a fork: file handles belong to one
    process and are opened when they are first needed.
    """

    def __init__(
        self, root: Path, manifest: FrameStoreManifest, key: str, index: StoreIndex
    ) -> None:
        self.root = root
        self.manifest = manifest
        self._key = key
        self._index = index
        self._reset_handles()

    @classmethod
    def open(
        cls,
        root: Path | str,
        *,
        geometry: FrameGeometry | None = None,
        allow_incomplete: bool = False,
    ) -> FrameStore:
        """Open a finished store, or with ``allow_incomplete`` the committed units of any store.

        Raises FrameStoreError if the store is missing or unfinished, if its geometry is not the
        requested ``geometry``, or if files are missing or have another size than recorded.
        """
        root = Path(root)
        manifest = read_manifest(root)
        if geometry is not None and geometry != manifest.geometry:
            raise FrameStoreError(
                f"the frame store {root} has another geometry",
                expected=geometry,
                found=manifest.geometry,
                remedy="name a store of that geometry, or build one",
            )
        layout = StoreLayout(root)
        units = present_units(root, manifest, allow_incomplete=allow_incomplete)
        key = commits_key(layout, units)
        index = open_store_index(layout, units, key)
        for unit, size in zip(index.units_U.tolist(), index.file_bytes_U.tolist(), strict=True):
            check_size(layout, unit, size)
        return cls(root, manifest, key, index)

    def _reset_handles(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._units: OrderedDict[int, _UnitFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        # Each process maps the index itself; another machine derives it again. Its working folder
        # may be another one.
        units = self._index.units_U.tolist()
        return {
            "root": self.root.absolute(),
            "manifest": self.manifest,
            "key": self._key,
            "units": units,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        index = open_store_index(StoreLayout(state["root"]), state["units"], state["key"])
        self.__init__(state["root"], state["manifest"], state["key"], index)  # type: ignore[misc]

    @cached_property
    def failed(self) -> Mapping[str, UndecodableVideo]:
        """video_id -> every video that could not be decoded. Reads the commit records."""
        return {video.video_id: video for commit in self.commits() for video in commit.failed}

    @cached_property
    def damage(self) -> Mapping[str, str]:
        """video_id -> what is wrong with a stored video. Reads the commit records."""
        return {video.video_id: video.damage for c in self.commits() for video in c.damaged}

    @property
    def failed_digests(self) -> np.ndarray:
        """Digests (bytes [F], sorted) of the videos that could not be decoded."""
        return self._index.failed_digests_F

    @cached_property
    def videos(self) -> Mapping[str, StoredVideo]:
        """video_id -> stored video."""
        return VideoMap(self._index)

    @cached_property
    def by_digest(self) -> DigestMap:
        """sha256 of a video file -> video_id."""
        return DigestMap(self._index)

    @cached_property
    def video_ids(self) -> tuple[str, ...]:
        """Ids of the stored videos, sorted."""
        return tuple(self.videos)

    @property
    def id_column(self) -> np.ndarray:
        """Ids (bytes [V], sorted) of the stored videos; a video's number is its position here."""
        return self._index.video_ids_V

    @property
    def frame_counts(self) -> np.ndarray:
        """int64 [V]: number of frames of each stored video."""
        return self._index.frame_count_V

    @property
    def short_edges(self) -> np.ndarray:
        """int32 [V]: the smaller of height and width of each stored video, pixels."""
        edges_V: np.ndarray = np.minimum(self._index.heights_V, self._index.widths_V)
        return edges_V

    def numbers_of(self, digests_N: np.ndarray) -> np.ndarray:
        """Numbers (int64 [N]) of the (first) videos with these digests (bytes); -1: not stored."""
        return self.by_digest.numbers_of(digests_N)

    def jpegs(self, video_id: str, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """The JPEG bytes of frames of one video, in the order of ``indices``.

        Raises FrameStoreError for an unknown video or frame, for bytes that differ from the
        committed ones, and for JPEGs of another size than recorded.
        """
        number = self._index.number_of(video_id)
        if number < 0:
            raise FrameStoreError(
                f"video {video_id} is not in the frame store {self.root}",
                found=self.failed[video_id].error if video_id in self.failed else None,
                remedy="build the store from the same videos",
            )
        frame_N = np.asarray(indices, np.int64)
        unit_N, row_N = self._index.locate(number, frame_N)
        if self._pid != os.getpid():
            self._reset_handles()
        height, width, components = self._jpeg_size(number)
        video = video_checksum(video_id)
        max_bytes = _HEADER_BYTES + _BYTES_PER_PIXEL * height * width
        located = zip(unit_N.tolist(), row_N.tolist(), frame_N.tolist(), strict=True)
        with self._lock:
            jpegs = [self._unit(u).jpeg(row, video, frame, max_bytes) for u, row, frame in located]
        check_headers(jpegs, height, width, components)
        return jpegs

    def _jpeg_size(self, number: int) -> tuple[int, int, int]:
        """(height, width, components) of the JPEGs of a video."""
        height, width = int(self._index.heights_V[number]), int(self._index.widths_V[number])
        if self.channels == _RGB:
            return height, width, 3
        return height * self.channels, width, 1  # planes are stacked vertically, in gray

    def clip(self, video_id: str, indices: Sequence[int] | np.ndarray) -> torch.Tensor:
        """uint8 [T, channels, height, width]: frames of one video, in the order of ``indices``.

        Without indices T is 0. Channels are RGB, or the two planes of flow (see FlowSpec). Raises
        FrameStoreError as ``jpegs`` does, and for a JPEG that cannot be decoded.
        """
        jpegs = self.jpegs(video_id, indices)
        if not jpegs:
            video = self.videos[video_id]
            return torch.empty((0, self.channels, video.height, video.width), dtype=torch.uint8)
        frames = decode_frames(jpegs, self.channels)
        # The decoder's memory order is height, width, channels; keeping it makes the copy fast.
        return torch.stack([frame.permute(1, 2, 0) for frame in frames]).permute(0, 3, 1, 2)

    def frames(
        self, video_id: str, indices: Sequence[int] | np.ndarray | None = None
    ) -> NDArray[np.uint8]:
        """Frames of one video, uint8 [T, height, width, channels]; None: all its frames.

        ``indices`` are 0-based indices of decoded frames, in display order; frames come in the
        order of ``indices``. Channels and errors are as in ``clip``.
        """
        if indices is None:
            stored = self.videos.get(video_id)
            indices = range(stored.frame_count if stored else 1)  # ``clip`` refuses unknown ids
        frames_THWC: NDArray[np.uint8] = self.clip(video_id, indices).permute(0, 2, 3, 1).numpy()
        return frames_THWC

    @property
    def channels(self) -> int:
        """3 for an RGB store, 2 for a flow store."""
        return _RGB if self.manifest.flow is None else 2

    def pixels_digest(self) -> str:
        """Digest of the geometry, and for a flow store also of how the flow was computed."""
        geometry = self.manifest.geometry.record_digest()
        flow = self.manifest.flow
        return geometry if flow is None else sha256_of([geometry, flow.record_digest()])

    def commits(self) -> Iterator[StoreCommit]:
        """Yield the commit records of all units. Raises FrameStoreError if one is damaged."""
        return read_commits(StoreLayout(self.root), self._index.units_U.tolist())

    def _unit(self, unit: int) -> _UnitFile:
        """The open file of a unit; if too many are open, the least recently used is closed."""
        if unit in self._units:
            self._units.move_to_end(unit)
            return self._units[unit]
        if len(self._units) >= files_at_once():
            self._units.popitem(last=False)
        path = StoreLayout(self.root).unit(unit)
        self._units[unit] = _UnitFile(path, unit, *self._index.batches_of(unit))
        return self._units[unit]


class _UnitFile:
    """One memory-mapped unit file; ``jpeg`` costs the same for every row.

    Nothing is cached per row or batch: small objects between the large blocks of decoded clips
    would keep the allocator from reusing those blocks.
    """

    def __init__(self, path: Path, unit: int, file_bytes: int, batches_B: np.ndarray) -> None:
        self._path, self._unit = path, unit
        self._batches_B = batches_B
        self._bytes = self._mapped(file_bytes)

    def _mapped(self, file_bytes: int) -> mmap.mmap:
        try:
            descriptor = open_regular(self._path)
            try:
                if os.fstat(descriptor).st_size != file_bytes:
                    raise self._damaged("a size that has changed since the store was opened")
                return mmap.mmap(descriptor, file_bytes, access=mmap.ACCESS_READ)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._damaged(str(error.strerror)) from error

    def jpeg(self, row: int, video: int, frame: int, max_bytes: int) -> bytes:
        """The JPEG of a row.

        Raises FrameStoreError unless it has at most ``max_bytes`` and the checksum of ``frame`` of
        the video whose ``video_checksum`` is ``video``.
        """
        batch, inside = divmod(row, ROWS_PER_BATCH)
        offsets, jpegs, checksums = self._batches_B.item(batch)
        first, end = _OFFSETS.unpack_from(self._bytes, offsets + inside * _OFFSETS.size // 2)
        (stored,) = _CHECKSUM.unpack_from(self._bytes, checksums + inside * _CHECKSUM.size)
        # A slice beyond the end of the file is empty, and then the checksum differs.
        valid = 0 <= first <= end <= first + max_bytes
        jpeg = self._bytes[jpegs + first : jpegs + end] if valid else b""
        if frame_checksum(video, frame, jpeg) != stored:
            raise self._damaged(f"a different checksum in row {row}")
        return jpeg

    def _damaged(self, found: str) -> FrameStoreError:
        return damaged_unit(self._path, self._unit, "the bytes that were committed", found)
