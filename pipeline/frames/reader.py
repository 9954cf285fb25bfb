"""Read a frame store: memory-mapped JPEG frames, at a constant cost per clip."""

from __future__ import annotations

import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from distinit.pipeline.frames.commits import check_size, commits_key, present_units, read_commits
from distinit.pipeline.frames.derive import open_run_index
from distinit.pipeline.frames.index import DigestMap, RunIndex, StoredVideoInfo, VideoMap
from distinit.pipeline.frames.jpeg import decode_frames
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.frames.writer import ROWS_PER_BATCH, read_manifest
from distinit.pipeline.storage import safe_join, sha256_file
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import FailedVideo, FrameGeometry, FrameStoreManifest, StoreCommit
from distinit.schemas.tables import STORE_SCHEMA

__all__ = ["FrameStore"]

# Each open unit holds one file descriptor; well below the usual limit of 1024.
MAX_OPEN_UNITS = 256
# Of an Arrow binary column: where a row begins and ends.
_OFFSETS = struct.Struct("<2i")


class FrameStore:
    """A frame store on disk. Open it with ``FrameStore.open``.

    Safe to share between threads, to pickle, and to use after a fork: file handles belong to
    one process and are opened when first needed.
    """

    def __init__(self, root: Path, manifest: FrameStoreManifest, key: str, index: RunIndex) -> None:
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
        """Open a finished store; with ``allow_incomplete`` what is committed of an unfinished one.

        Raises FrameStoreError if the store is missing, unfinished, of another ``geometry`` than
        asked for, or if files are missing or of another size than committed.
        """
        root = Path(root)
        manifest = read_manifest(root)
        if geometry is not None and geometry != manifest.geometry:
            raise FrameStoreError(
                f"the frame store {root} has another geometry",
                expected=geometry,
                found=manifest.geometry,
                remedy="give a store of that geometry, or build one",
            )
        layout = StoreLayout(root)
        units = present_units(root, manifest, allow_incomplete=allow_incomplete)
        key = commits_key(layout, units)
        index = open_run_index(layout, units, key)
        for unit, size in zip(index.units_U.tolist(), index.file_bytes_U.tolist(), strict=True):
            check_size(layout, unit, size)
        return cls(root, manifest, key, index)

    def _reset_handles(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._units: OrderedDict[int, _UnitFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        # The index is mapped by each process anew, and derived again on another machine.
        units = self._index.units_U.tolist()
        return {"root": self.root, "manifest": self.manifest, "key": self._key, "units": units}

    def __setstate__(self, state: dict[str, Any]) -> None:
        index = open_run_index(StoreLayout(state["root"]), state["units"], state["key"])
        self.__init__(state["root"], state["manifest"], state["key"], index)  # type: ignore[misc]

    @cached_property
    def failed(self) -> Mapping[str, FailedVideo]:
        """Every video that could not be decoded, by its id; reads the commit records again."""
        return {video.video_id: video for commit in self.commits() for video in commit.failed}

    @property
    def failed_digests(self) -> np.ndarray:
        """Digests (bytes [F], sorted) of the videos that could not be decoded."""
        return self._index.failed_digests_F

    @cached_property
    def videos(self) -> Mapping[str, StoredVideoInfo]:
        """Every stored video by its id."""
        return VideoMap(self._index)

    @cached_property
    def by_digest(self) -> DigestMap:
        """sha256 of a video file -> video_id."""
        return DigestMap(self._index)

    @property
    def video_ids(self) -> np.ndarray:
        """Ids (bytes [V], sorted) of the stored videos; a video's place is its number."""
        return self._index.video_ids_V

    @property
    def frame_counts(self) -> np.ndarray:
        """int64 [V]: frames of each stored video."""
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
        """The JPEG bytes of frames of one video, in the order asked for.

        Raises FrameStoreError for an unknown video or frame.
        """
        number = self._index.number_of(video_id)
        if number < 0:
            raise FrameStoreError(
                f"video {video_id} is not in the frame store {self.root}",
                found=self.failed[video_id].error if video_id in self.failed else None,
                remedy="build the store from the same videos",
            )
        units_N, rows_N = self._index.locate(number, np.asarray(indices, np.int64))
        if self._pid != os.getpid():
            self._reset_handles()
        pairs = zip(units_N.tolist(), rows_N.tolist(), strict=True)
        with self._lock:
            return [self._unit(unit).jpeg(row) for unit, row in pairs]

    def clip(self, video_id: str, indices: Sequence[int]) -> torch.Tensor:
        """uint8 [T, channels, height, width] of frames of one video, in the order asked for.

        RGB, or the two planes of flow (see FlowSpec). Raises FrameStoreError for an unknown video
        or frame and for damaged bytes.
        """
        frames = decode_frames(self.jpegs(video_id, indices), self.channels)
        # The decoder's order in memory is height, width, channels: kept, one copy is fast.
        return torch.stack([frame.permute(1, 2, 0) for frame in frames]).permute(0, 3, 1, 2)

    @property
    def channels(self) -> int:
        """3 of an RGB store, 2 of a flow store."""
        return 3 if self.manifest.flow is None else 2

    def pixels_digest(self) -> str:
        """Digest of what its pictures are: the geometry, and of a flow store how flow was made."""
        geometry = self.manifest.geometry.record_digest()
        flow = self.manifest.flow
        return geometry if flow is None else sha256_of([geometry, flow.record_digest()])

    def commits(self) -> Iterator[StoreCommit]:
        """The commit records of its units. Raises FrameStoreError for damaged ones."""
        return read_commits(StoreLayout(self.root), self._index.units_U.tolist())

    def _unit(self, unit: int) -> _UnitFile:
        """The open file of a unit; the least recently used one makes room."""
        if unit in self._units:
            self._units.move_to_end(unit)
            return self._units[unit]
        if len(self._units) >= MAX_OPEN_UNITS:
            self._units.popitem(last=False)
        self._units[unit] = _UnitFile(StoreLayout(self.root).unit(unit))
        return self._units[unit]

    def verify(self, *, deep: bool = True) -> tuple[str, ...]:
        """Problems found, one line each: sizes, with ``deep`` also sha256 of every file."""
        problems = []
        for commit in self.commits():
            try:
                for entry in commit.files.values():
                    check_size(StoreLayout(self.root), commit.unit, entry.size)
            except FrameStoreError as error:
                problems.append(f"unit {commit.unit}: {error.problem}")
                continue
            for name, entry in commit.files.items():
                if deep and sha256_file(safe_join(self.root, name)) != entry.sha256:
                    problems.append(f"unit {commit.unit}: {name} has other bytes than committed")
        return tuple(problems)


class _UnitFile:
    """One memory-mapped unit file; ``jpeg`` costs the same for every row.

    Of a batch that was read, three numbers are kept in an array that is there from the start: an
    object for each, made between the large blocks of decoded clips, would keep the allocator from
    using those again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            source = pa.memory_map(str(path))
            self._reader = pa.ipc.open_file(source)
            self._bytes = memoryview(source.read_buffer())
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(path, str(error)) from error
        if self._reader.schema != STORE_SCHEMA:
            raise _damaged(path, f"columns {self._reader.schema.names}")
        self._base = pa.py_buffer(self._bytes).address
        # By batch: where its offsets and its JPEGs begin in the file, and its rows; 0: not read.
        self._place_B3 = np.zeros((self._reader.num_record_batches, 3), np.int64)

    def jpeg(self, row: int) -> bytes:
        batch, inside = divmod(row, ROWS_PER_BATCH)
        if not 0 <= batch < len(self._place_B3):
            raise _damaged(self._path, f"no row {row}")
        if self._place_B3[batch, 2] == 0:
            self._place_B3[batch] = self._places(batch)
        offsets, jpegs, rows = self._place_B3[batch].tolist()
        if inside >= rows:
            raise _damaged(self._path, f"no row {row}")
        first, end = _OFFSETS.unpack_from(self._bytes, offsets + inside * _OFFSETS.size // 2)
        return self._bytes[jpegs + first : jpegs + end].tobytes()

    def _places(self, batch: int) -> tuple[int, int, int]:
        try:
            column = self._reader.get_batch(batch).column("jpeg")
            column.validate(full=True)  # offsets of a foreign file could point anywhere
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(self._path, str(error)) from error
        is_last = batch == len(self._place_B3) - 1
        if column.null_count:
            raise _damaged(self._path, f"batch {batch}: {len(column)} rows, some without a frame")
        if len(column) != ROWS_PER_BATCH and not is_last:  # rows would be taken for others
            raise _damaged(self._path, f"batch {batch}: {len(column)} rows, not {ROWS_PER_BATCH}")
        _, *buffers = column.buffers()
        offsets, jpegs = (-1 if b is None else b.address - self._base for b in buffers)
        if not (0 <= offsets < len(self._bytes) and 0 <= jpegs < len(self._bytes)):
            raise _damaged(self._path, f"batch {batch}: compressed or empty columns")
        return offsets, jpegs, len(column)


def _damaged(path: Path, found: str) -> FrameStoreError:
    return FrameStoreError(
        f"{path} is damaged",
        expected="an Arrow file of JPEG frames",
        found=found,
        remedy="delete its commit record and run the same command again",
    )
