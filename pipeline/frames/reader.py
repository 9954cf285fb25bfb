"""Read a frame store: memory-mapped JPEG frames, at a constant cost per clip."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import ValidationError

from distinit.pipeline.frames.index import DigestMap, RunIndex, StoredVideoInfo, VideoMap
from distinit.pipeline.frames.jpeg import decode_frames
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.frames.writer import ROWS_PER_BATCH, read_manifest
from distinit.pipeline.storage import safe_join, sha256_file
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import CacheCorruptError, FrameStoreError
from distinit.schemas.frames import FailedVideo, FrameGeometry, FrameStoreManifest, StoreCommit
from distinit.schemas.tables import STORE_SCHEMA

__all__ = ["FrameStore"]

# Each open unit holds one file descriptor; well below the usual limit of 1024.
MAX_OPEN_UNITS = 256


class FrameStore:
    """A frame store on disk. Open it with ``FrameStore.open``.

    Safe to share between threads, to pickle, and to use after a fork: file handles belong to
    one process and are opened when first needed.
    """

    def __init__(
        self,
        root: Path,
        manifest: FrameStoreManifest,
        index: RunIndex,
        failed: Mapping[str, FailedVideo],
    ) -> None:
        self.root = root
        self.manifest = manifest
        self.failed = failed
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
        failed: dict[str, FailedVideo] = {}

        def sound_commits() -> Iterator[StoreCommit]:
            for commit in _read_commits(root, manifest, allow_incomplete):
                _check_sizes(root, commit)
                failed.update((video.video_id, video) for video in commit.failed)
                yield commit

        return cls(root, manifest, RunIndex.from_commits(sound_commits()), failed)

    def _reset_handles(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._units: OrderedDict[int, _UnitFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"args": (self.root, self.manifest, self._index, self.failed)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(*state["args"])  # type: ignore[misc]

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

    def numbers_of(self, digests_N: np.ndarray) -> np.ndarray:
        """Numbers (int64 [N]) of the (first) videos with these digests (bytes); -1: not stored."""
        return self.by_digest.numbers_of(digests_N)

    def jpegs(self, video_id: str, indices: Sequence[int]) -> list[bytes]:
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
        return _read_commits(self.root, self.manifest, allow_incomplete=True)

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
                _check_sizes(self.root, commit)
            except FrameStoreError as error:
                problems.append(f"unit {commit.unit}: {error.problem}")
                continue
            for name, entry in commit.files.items():
                if deep and sha256_file(safe_join(self.root, name)) != entry.sha256:
                    problems.append(f"unit {commit.unit}: {name} has other bytes than committed")
        return tuple(problems)


class _UnitFile:
    """One memory-mapped unit file; ``jpeg`` costs the same for every row."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(path, str(error)) from error
        if self._reader.schema != STORE_SCHEMA:
            raise _damaged(path, f"columns {self._reader.schema.names}")
        self._path = path
        self._columns: dict[int, pa.BinaryArray] = {}

    def jpeg(self, row: int) -> bytes:
        batch, offset = divmod(row, ROWS_PER_BATCH)
        try:
            if batch not in self._columns:
                column = self._reader.get_batch(batch).column("jpeg")
                column.validate(full=True)  # offsets of a foreign file could point anywhere
                self._columns[batch] = column
            jpeg: bytes = self._columns[batch][offset].as_py()
        except (pa.ArrowInvalid, IndexError, ValueError, OSError) as error:
            raise _damaged(self._path, str(error)) from error
        return jpeg


def _damaged(path: Path, found: str) -> FrameStoreError:
    return FrameStoreError(
        f"{path} is damaged",
        expected="an Arrow file of JPEG frames",
        found=found,
        remedy="delete its commit record and run the same command again",
    )


def _read_commits(
    root: Path, manifest: FrameStoreManifest, allow_incomplete: bool
) -> Iterator[StoreCommit]:
    layout = StoreLayout(root)
    committed = layout.committed_units()
    units = sorted(committed) if manifest.units is None else manifest.units
    there = [unit for unit in units if unit in committed]
    if not allow_incomplete and (manifest.units is None or len(there) < len(units)):
        raise FrameStoreError(
            f"the frame store {root} is not finished",
            expected="all units" if manifest.units is None else f"{len(units)} units",
            found=f"{len(there)} committed",
            remedy="run the command that writes it again: it continues where it stopped",
        )
    return (_read_commit(layout, unit) for unit in there)


def _read_commit(layout: StoreLayout, unit: int) -> StoreCommit:
    path = layout.commit(unit)
    try:
        commit = StoreCommit.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise FrameStoreError(
            f"{path} cannot be read", found=f"{first['loc']}: {first['msg']}"
        ) from error
    if commit.unit != unit or set(commit.files) != {layout.unit_name(unit)}:
        raise FrameStoreError(
            f"{path} speaks of other files",
            expected=f"unit {unit}: {layout.unit_name(unit)}",
            found=f"unit {commit.unit}: {', '.join(sorted(commit.files))[:200]}",
            remedy="do not use this folder; ask its sender for a clean copy",
        )
    return commit


def _check_sizes(root: Path, commit: StoreCommit) -> None:
    """A file cut short would otherwise end a reader with a bus error."""
    for name, entry in commit.files.items():
        try:
            size: int | None = safe_join(root, name).stat().st_size
        except FileNotFoundError:
            size = None
        except CacheCorruptError as error:
            raise FrameStoreError(
                error.problem, expected=error.expected, found=error.found, remedy=error.remedy
            ) from error
        if size != entry.size:
            raise FrameStoreError(
                f"{root / name} is not what was committed",
                expected=f"{entry.size} bytes",
                found="no such file" if size is None else f"{size} bytes",
                remedy=f"delete commits/unit-{commit.unit:05d}.json and run the command again",
            )
