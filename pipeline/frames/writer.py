"""Writes a frame store: one Arrow file of JPEGs per unit, committed as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distinit.pipeline.frames.commits import check_size, read_commit, read_manifest
from distinit.pipeline.frames.jpeg import encode_jpeg, encode_planes
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.frames.rows import RowFile, batch_locations, without_videos
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.records import file_entry, write_record
from distinit.pipeline.storage import (
    PARTIAL_SUFFIX,
    fsync_dir,
    fsync_file,
    refuse_links,
    storage_errors,
)
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import (
    MAX_STORED_PIXELS,
    DamagedVideo,
    FlowSpec,
    FrameGeometry,
    FrameStoreManifest,
    StoreCommit,
    UndecodableVideo,
    VideoRows,
)

__all__ = ["EncodedFrames", "FrameStoreWriter", "UnitFrameWriter", "store_lock"]


def store_lock(root: Path) -> WriterLock:
    """The lock of the store at ``root``, which a writer must hold.

    Raises FrameStoreError if the folder holds links, or content that is not a frame store.
    """
    layout = StoreLayout(root)
    if root.is_dir() and not layout.manifest.exists():
        others = sorted(
            path.name
            for path in root.iterdir()
            if path.name != layout.lock.name and not path.name.endswith(PARTIAL_SUFFIX)
        )
        if others:
            raise FrameStoreError(
                f"{root} has content but no {layout.manifest.name}",
                expected="an empty folder or a frame store",
                found=", ".join(others[:5]),
                remedy="choose another folder",
            )
    refuse_links(root, FrameStoreError)
    return WriterLock(layout.lock)


class FrameStoreWriter:
    """Creates a frame store, or continues one of the same geometry, plan and kind.

    One process must hold ``store_lock`` while anything is written. The writer can be pickled, so
    that processes started by the one with the lock may write different units of one store.

    Args:
        root: Folder of the store.
        geometry: Size and quality of the stored frames.
        plan_digest: Digest of the plan that assigns videos to units.
        flow: How the flow is computed, for a store of optical flow.

    Raises FrameStoreError if ``root`` holds a store of another geometry, plan or kind.
    """

    def __init__(
        self, root: Path, geometry: FrameGeometry, plan_digest: str, flow: FlowSpec | None = None
    ) -> None:
        self._layout = StoreLayout(root)
        self.geometry = geometry
        self.flow = flow
        self.plan_digest = plan_digest
        if self._layout.manifest.exists():
            self._check_manifest(read_manifest(root))
        else:
            self._write_manifest(units=None)

    def _check_manifest(self, manifest: FrameStoreManifest) -> None:
        for name, expected, found in (
            ("geometry", self.geometry, manifest.geometry),
            ("plan", self.plan_digest, manifest.plan_digest),
            ("kind of frames", self.flow or "RGB", manifest.flow or "RGB"),
        ):
            if expected != found:
                raise FrameStoreError(
                    f"the frame store {self._layout.root} was made with another {name}",
                    expected=expected,
                    found=found,
                    remedy="name another folder, or delete this one; to repair it, rerun the "
                    "command that wrote it, with the same videos (extract --frames, frames build, "
                    "flow build or finetune)",
                )

    def _write_manifest(self, units: tuple[int, ...] | None) -> None:
        manifest = FrameStoreManifest(
            geometry=self.geometry, flow=self.flow, plan_digest=self.plan_digest, units=units
        )
        write_record(manifest.sealed(), self._layout.manifest)

    def committed_units(self) -> frozenset[int]:
        """Units with a commit record."""
        return self._layout.committed_units()

    def pending_units(self, units: Iterable[int]) -> list[int]:
        """Those of ``units`` that must be written, because they are missing or damaged.

        If the record of a unit is damaged, or its file is missing or differs in size, its commit
        record is removed. Files that a killed writer left are removed too. The caller must hold
        ``store_lock``. Raises StorageError if something cannot be removed.
        """
        self._remove_partials()
        committed = self.committed_units()
        pending = []
        for unit in units:
            if unit not in committed or not self._is_intact(unit):
                self.remove_commit(unit)
                pending.append(unit)
        return pending

    def _remove_partials(self) -> None:
        """Remove what killed writers left. The caller holds the lock, so no writer is alive."""
        name = f"{self._layout.manifest.name}*{PARTIAL_SUFFIX}"
        for pattern in (f"unit-*{PARTIAL_SUFFIX}", name, f"commits/*{PARTIAL_SUFFIX}"):
            for path in self._layout.root.glob(pattern):
                with storage_errors(path):
                    path.unlink(missing_ok=True)

    def _is_intact(self, unit: int) -> bool:
        try:
            (entry,) = self.read_commit(unit).files.values()
            check_size(self._layout, unit, entry.size)
        except FrameStoreError:
            return False
        return True

    def read_commit(self, unit: int) -> StoreCommit:
        """The record of a committed unit. Raises FrameStoreError if it is damaged."""
        return read_commit(self._layout, unit)

    def remove_commit(self, unit: int) -> None:
        """Remove a unit's commit record, so that the unit must be written again.

        Raises StorageError.
        """
        path = self._layout.commit(unit)
        with storage_errors(path):
            path.unlink(missing_ok=True)

    def open_unit(self, unit: int) -> UnitFrameWriter:
        """Start to write a unit from its beginning."""
        return UnitFrameWriter(self._layout, self.geometry, unit, self.flow)

    def finalise(self, units: Iterable[int]) -> None:
        """Declare the store finished, with ``units``. Call it again after adding more units.

        Files that killed writers left are removed; the caller must hold ``store_lock``.
        Raises FrameStoreError if one of ``units`` is not committed.
        """
        expected = tuple(sorted(units))
        committed = self.committed_units()
        missing = [unit for unit in expected if unit not in committed]
        if missing:
            raise FrameStoreError(
                f"the frame store {self._layout.root} is not finished",
                expected=f"{len(expected)} committed units",
                found=f"{len(missing)} missing, the first is {missing[0]}",
                remedy="rerun the command that writes it",
            )
        self._remove_partials()
        self._write_manifest(expected)


@dataclass(frozen=True, slots=True)
class EncodedFrames:
    """Consecutive frames of one video as JPEGs; ``rows.first_row`` is not yet known."""

    rows: VideoRows
    jpegs: Sequence[bytes]

    @property
    def byte_count(self) -> int:
        """Size of all JPEGs."""
        return sum(map(len, self.jpegs))


class UnitFrameWriter:
    """Streams the frames of one unit to disk; ``commit`` makes all of them visible at once.

    As a context manager, it aborts on exit unless ``commit`` was called.
    """

    def __init__(
        self, layout: StoreLayout, geometry: FrameGeometry, unit: int, flow: FlowSpec | None = None
    ) -> None:
        self._layout = layout
        self._unit = unit
        self._channels = 3 if flow is None else 2
        self._encode = encode_jpeg if flow is None else encode_planes
        self._quality = geometry.jpeg_quality if flow is None else flow.jpeg_quality
        self._path = layout.unit(unit)
        self._rows = RowFile(self._path)
        self._dropped: set[str] = set()
        self._failed: dict[str, UndecodableVideo] = {}
        self._damaged: dict[str, DamagedVideo] = {}
        self._fps: dict[str, float] = {}

    def append(
        self, video_id: str, digest: str, first_frame: int, frames_NHWC: np.ndarray, fps: float
    ) -> None:
        """Add consecutive frames of a video, which are encoded as JPEG.

        Args:
            video_id: Id of the video.
            digest: sha256 of the video file.
            first_frame: Index of the first frame in the video.
            frames_NHWC: uint8, 3 channels of RGB, or 2 channels in a flow store.
            fps: Mean frames per second of the source; 0 if unknown.

        Raises FrameStoreError for arrays of another type or shape, StorageError if the disk
        cannot be written.
        """
        self.append_encoded(self.encode(video_id, digest, first_frame, frames_NHWC, fps))

    def encode(
        self, video_id: str, digest: str, first_frame: int, frames_NHWC: np.ndarray, fps: float
    ) -> EncodedFrames:
        """The first half of ``append``: only encodes. May be called by several threads."""
        self._check_frames(video_id, frames_NHWC)
        frame_count, height, width, _ = frames_NHWC.shape
        rows = VideoRows(
            video_id=video_id,
            digest=digest,
            first_frame=first_frame,
            frame_count=frame_count,
            first_row=0,
            height=height,
            width=width,
            fps=fps,
        )
        jpegs = [self._encode(frame_HWC, self._quality) for frame_HWC in frames_NHWC]
        return EncodedFrames(rows, jpegs)

    def append_encoded(self, encoded: EncodedFrames) -> None:
        """The second half of ``append``: writes what ``encode`` returned."""
        rows = encoded.rows.model_copy(update={"first_row": self._rows.row_count})
        with storage_errors(self._path):
            self._rows.add(rows, encoded.jpegs)

    def _check_frames(self, video_id: str, frames_NHWC: np.ndarray) -> None:
        fits = frames_NHWC.ndim == 4 and frames_NHWC.shape[3] == self._channels
        if frames_NHWC.dtype != np.uint8 or not fits:
            raise FrameStoreError(
                f"frames of video {video_id} cannot be stored",
                expected=f"uint8 [N, height, width, {self._channels}]",
                found=f"{frames_NHWC.dtype} {list(frames_NHWC.shape)}",
            )
        _, height, width, _ = frames_NHWC.shape
        if height * width > MAX_STORED_PIXELS:
            raise FrameStoreError(
                f"frames of video {video_id} are too large to be stored",
                expected=f"at most {MAX_STORED_PIXELS:,} pixels",
                found=f"{width}x{height}",
                remedy="leave the video out, or store frames of 128x171",
            )

    def set_fps(self, video_id: str, fps: float) -> None:
        """Replace the frame rate passed to ``append`` with the one measured while decoding."""
        self._fps[video_id] = fps

    def note_damage(self, video_id: str, digest: str, damage: str) -> None:
        """Record what is wrong with a video whose frames are stored."""
        self._damaged[video_id] = DamagedVideo(video_id=video_id, digest=digest, damage=damage)

    def discard_video(self, video_id: str) -> None:
        """Drop all frames of a video from this unit, including those that are appended later."""
        self._dropped.add(video_id)

    def fail_video(self, video_id: str, digest: str, error: str) -> None:
        """Drop a video, and record why it could not be decoded."""
        self.discard_video(video_id)
        self._failed[video_id] = UndecodableVideo(video_id=video_id, digest=digest, error=error)

    def commit(self) -> StoreCommit:
        """Sync the file of frames, move it into place, then write the commit record.

        Raises StorageError if the disk cannot be written.
        """
        with storage_errors(self._path):
            self._rows.close()
            if self._dropped:
                self._rows = without_videos(self._rows, self._dropped)
            fsync_file(self._rows.path)
            batches = tuple(batch_locations(self._rows.path))
            self._layout.commit(self._unit).unlink(missing_ok=True)
            self._rows.path.replace(self._path)
            fsync_dir(self._path.parent)
            entry = file_entry(self._path)
        commit = StoreCommit(
            unit=self._unit,
            files={self._layout.unit_file_name(self._unit): entry},
            videos=tuple(
                rows.model_copy(update={"fps": self._fps.get(rows.video_id, rows.fps)})
                for rows in self._rows.videos
            ),
            batches=batches,
            failed=tuple(self._failed.values()),
            damaged=tuple(self._damaged.values()),
        ).sealed()
        write_record(commit, self._layout.commit(self._unit), indent=1)
        return commit

    def abort(self) -> None:
        """Remove what was written; no effect after ``commit``."""
        self._rows.discard()

    def __enter__(self) -> UnitFrameWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()
