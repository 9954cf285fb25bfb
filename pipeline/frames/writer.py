"""Write a frame store: one Arrow file of JPEG frames per unit, committed whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from distinit.pipeline.frames.commits import check_size, read_commit, read_manifest
from distinit.pipeline.frames.jpeg import encode_jpeg, encode_planes
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.frames.rows import RowFile, places_of, without_videos
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.records import write_record
from distinit.pipeline.storage import (
    PARTIAL_SUFFIX,
    fsync_dir,
    fsync_file,
    refuse_links,
    sha256_file,
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
from distinit.schemas.manifest import FileEntry

__all__ = ["FrameStoreWriter", "UnitFrameWriter", "store_lock"]


def store_lock(root: Path) -> WriterLock:
    """The lock of the store at ``root``, to be held by whoever writes units of it.

    Raises FrameStoreError where the folder holds links, or content that is no frame store.
    """
    layout = StoreLayout(root)
    if root.is_dir() and not layout.manifest.exists():
        strangers = sorted(
            path.name
            for path in root.iterdir()
            if path.name != layout.lock.name and not path.name.endswith(PARTIAL_SUFFIX)
        )
        if strangers:
            raise FrameStoreError(
                f"{root} has content but no {layout.manifest.name}",
                expected="an empty folder or a frame store",
                found=", ".join(strangers[:5]),
                remedy="choose another folder",
            )
    refuse_links(root, FrameStoreError)
    return WriterLock(layout.lock)


class FrameStoreWriter:
    """Creates a frame store or continues one of the same geometry and plan; ``flow``: of flow.

    One process holds ``store_lock`` for as long as anything is written. Picklable: several
    processes, started by that one, may write different units of one store.

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
            self._refuse_another(read_manifest(root))
        else:
            self._write_manifest(units=None)

    def _refuse_another(self, manifest: FrameStoreManifest) -> None:
        for name, wanted, found in (
            ("geometry", self.geometry, manifest.geometry),
            ("plan", self.plan_digest, manifest.plan_digest),
            ("kind of pictures", self.flow or "RGB", manifest.flow or "RGB"),
        ):
            if wanted != found:
                raise FrameStoreError(
                    f"the frame store {self._layout.root} was made with another {name}",
                    expected=wanted,
                    found=found,
                    remedy="give another folder, or delete this one; to repair it, run the command "
                    "that wrote it again, with the same videos (extract --frames, frames build, "
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
        """Those of ``units`` that are not there whole, and are to be written (again).

        The commit of a unit whose record is damaged, or whose file is missing or of another size,
        is removed, as is what a killed writer has left. To be called by the holder of
        ``store_lock``. Raises StorageError where something cannot be removed.
        """
        for path in self._layout.root.glob(f"unit-*{PARTIAL_SUFFIX}*"):
            with storage_errors(path):
                path.unlink(missing_ok=True)
        committed = self.committed_units()
        pending = []
        for unit in units:
            if unit not in committed or not self._is_whole(unit):
                self.remove_commit(unit)
                pending.append(unit)
        return pending

    def _is_whole(self, unit: int) -> bool:
        try:
            (entry,) = self.read_commit(unit).files.values()
            check_size(self._layout, unit, entry.size)
        except FrameStoreError:
            return False
        return True

    def read_commit(self, unit: int) -> StoreCommit:
        """The record of a committed unit. Raises FrameStoreError where it is damaged."""
        return read_commit(self._layout, unit)

    def remove_commit(self, unit: int) -> None:
        """From now on the unit is to be written again. Raises StorageError."""
        path = self._layout.commit(unit)
        with storage_errors(path):
            path.unlink(missing_ok=True)

    def open_unit(self, unit: int) -> UnitFrameWriter:
        """Begin a unit afresh; what a killed writer left of it is overwritten."""
        return UnitFrameWriter(self._layout, self.geometry, unit, self.flow)

    def finalise(self, units: Iterable[int]) -> None:
        """Declare the store finished: it consists of ``units``. Repeat it after adding more.

        Raises FrameStoreError if one of them is not committed.
        """
        wanted = tuple(sorted(units))
        committed = self.committed_units()
        missing = [unit for unit in wanted if unit not in committed]
        if missing:
            raise FrameStoreError(
                f"the frame store {self._layout.root} is not finished",
                expected=f"{len(wanted)} committed units",
                found=f"{len(missing)} missing, the first is {missing[0]}",
                remedy="run the command that writes it again",
            )
        self._write_manifest(wanted)


class UnitFrameWriter:
    """Streams the frames of one unit to disk; ``commit`` makes them visible, at once.

    As a context manager it aborts on the way out unless it was committed.
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
        self._rows = RowFile(self._path.with_name(self._path.name + PARTIAL_SUFFIX))
        self._dropped: set[str] = set()
        self._failed: dict[str, UndecodableVideo] = {}
        self._damaged: dict[str, DamagedVideo] = {}
        self._fps: dict[str, float] = {}

    def append(
        self, video_id: str, digest: str, first_frame: int, frames_NHWC: np.ndarray, fps: float
    ) -> None:
        """Add consecutive frames ``first_frame`` .. of a video, uint8 RGB or flow, as JPEG.

        Raises FrameStoreError for other arrays, StorageError when the disk refuses.
        """
        self._check(video_id, frames_NHWC)
        count, height, width, _ = frames_NHWC.shape
        run = VideoRows(
            video_id=video_id,
            digest=digest,
            first_frame=first_frame,
            frame_count=count,
            first_row=self._rows.count,
            height=height,
            width=width,
            fps=fps,
        )
        jpegs = [self._encode(frame_HWC, self._quality) for frame_HWC in frames_NHWC]
        with storage_errors(self._path):
            self._rows.add(run, jpegs)

    def _check(self, video_id: str, frames_NHWC: np.ndarray) -> None:
        right = frames_NHWC.ndim == 4 and frames_NHWC.shape[3] == self._channels
        if frames_NHWC.dtype != np.uint8 or not right:
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
        """Replace the rate given to ``append`` by the one that decoding found."""
        self._fps[video_id] = fps

    def note_damage(self, video_id: str, digest: str, damage: str) -> None:
        """Record what is wrong with a video whose frames are stored."""
        self._damaged[video_id] = DamagedVideo(video_id=video_id, digest=digest, damage=damage)

    def discard_video(self, video_id: str) -> None:
        """Drop all frames of a video from this unit, earlier and later ones."""
        self._dropped.add(video_id)

    def fail_video(self, video_id: str, digest: str, error: str) -> None:
        """Drop a video and record why."""
        self.discard_video(video_id)
        self._failed[video_id] = UndecodableVideo(video_id=video_id, digest=digest, error=error)

    def commit(self) -> StoreCommit:
        """Sync the frames, move them into place, then write the commit record.

        Raises StorageError when the disk refuses.
        """
        with storage_errors(self._path):
            self._rows.close()
            if self._dropped:
                self._rows = without_videos(self._rows, self._dropped)
            fsync_file(self._rows.path)
            batches = tuple(places_of(self._rows.path))
            self._layout.commit(self._unit).unlink(missing_ok=True)
            self._rows.path.replace(self._path)
            fsync_dir(self._path.parent)
            entry = FileEntry(size=self._path.stat().st_size, sha256=sha256_file(self._path))
        commit = StoreCommit(
            unit=self._unit,
            files={self._layout.unit_file_name(self._unit): entry},
            videos=tuple(
                run.model_copy(update={"fps": self._fps.get(run.video_id, run.fps)})
                for run in self._rows.runs
            ),
            batches=batches,
            failed=tuple(self._failed.values()),
            damaged=tuple(self._damaged.values()),
        ).sealed()
        write_record(commit, self._layout.commit(self._unit), indent=1)
        return commit

    def abort(self) -> None:
        """Remove what was written; without effect after ``commit``."""
        self._rows.discard()

    def __enter__(self) -> UnitFrameWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()
