"""Write a frame store: one Arrow file of JPEG frames per unit, committed whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from distinit.pipeline.frames.jpeg import encode_jpeg, encode_planes
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.storage import (
    PARTIAL_SUFFIX,
    atomic_write_bytes,
    fsync_dir,
    fsync_file,
    sha256_file,
    storage_errors,
)
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import (
    FailedVideo,
    FlowSpec,
    FrameGeometry,
    FrameStoreManifest,
    StoreCommit,
    StoredVideo,
)
from distinit.schemas.manifest import FileEntry
from distinit.schemas.tables import STORE_SCHEMA

__all__ = ["ROWS_PER_BATCH", "FrameStoreWriter", "UnitFrameWriter", "read_manifest"]

# Every record batch but the last has this many rows, so that a reader finds a row's batch by
# division. 512 JPEGs of 128x171 are some 4 MB: what a writer holds in memory.
ROWS_PER_BATCH = 512


def read_manifest(root: Path) -> FrameStoreManifest:
    """Read ``store.json``. Raises FrameStoreError if it is missing or not one of ours."""
    path = StoreLayout(root).manifest
    try:
        return FrameStoreManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise FrameStoreError(
            f"{root} is no frame store",
            expected=str(path),
            found="no such file",
            remedy="build one with `distinit frames`, or give another folder",
        ) from None
    except ValidationError as error:
        raise FrameStoreError(
            f"{path} cannot be read",
            expected="a frame store manifest of format version 1",
            found="; ".join(f"{e['loc']}: {e['msg']}" for e in error.errors()[:3]),
            remedy="build the store again",
        ) from error


class FrameStoreWriter:
    """Creates a frame store or continues one of the same geometry and plan; ``flow``: of flow.

    Picklable: several processes may write different units of one store.

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
                    remedy="give another folder, or delete this one",
                )

    def _write_manifest(self, units: tuple[int, ...] | None) -> None:
        manifest = FrameStoreManifest(
            geometry=self.geometry, flow=self.flow, plan_digest=self.plan_digest, units=units
        )
        text = manifest.model_dump_json(indent=2) + "\n"
        atomic_write_bytes(self._layout.manifest, text.encode())

    def committed_units(self) -> frozenset[int]:
        """Units that are whole; the others are to be written."""
        return self._layout.committed_units()

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
                remedy="run the command that writes it again; a target cache that was finished "
                "without a frame store needs one built from its videos with `distinit frames`",
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
        self._rows = _RowFile(self._path.with_name(self._path.name + PARTIAL_SUFFIX))
        self._dropped: set[str] = set()
        self._failed: dict[str, FailedVideo] = {}
        self._fps: dict[str, float] = {}

    def append(
        self, video_id: str, digest: str, first_frame: int, frames_NHWC: np.ndarray, fps: float
    ) -> None:
        """Add consecutive frames ``first_frame`` .. of a video, uint8 RGB or flow, as JPEG.

        Raises FrameStoreError for other arrays, StorageError when the disk refuses.
        """
        right = frames_NHWC.ndim == 4 and frames_NHWC.shape[3] == self._channels
        if frames_NHWC.dtype != np.uint8 or not right:
            raise FrameStoreError(
                f"frames of video {video_id} cannot be stored",
                expected=f"uint8 [N, height, width, {self._channels}]",
                found=f"{frames_NHWC.dtype} {list(frames_NHWC.shape)}",
            )
        count, height, width, _ = frames_NHWC.shape
        run = StoredVideo(
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

    def set_fps(self, video_id: str, fps: float) -> None:
        """Replace the rate given to ``append`` by the one that decoding found."""
        self._fps[video_id] = fps

    def discard_video(self, video_id: str) -> None:
        """Drop all frames of a video from this unit, earlier and later ones."""
        self._dropped.add(video_id)

    def fail_video(self, video_id: str, digest: str, error: str) -> None:
        """Drop a video and record why."""
        self.discard_video(video_id)
        self._failed[video_id] = FailedVideo(video_id=video_id, digest=digest, error=error)

    def commit(self) -> StoreCommit:
        """Sync the frames, move them into place, then write the commit record.

        Raises StorageError when the disk refuses.
        """
        with storage_errors(self._path):
            self._rows.close()
            if self._dropped:
                self._rows = _without(self._rows, self._dropped)
            fsync_file(self._rows.path)
            self._layout.commit(self._unit).unlink(missing_ok=True)
            self._rows.path.replace(self._path)
            fsync_dir(self._path.parent)
            entry = FileEntry(size=self._path.stat().st_size, sha256=sha256_file(self._path))
        commit = StoreCommit(
            unit=self._unit,
            files={self._layout.unit_name(self._unit): entry},
            videos=tuple(
                run.model_copy(update={"fps": self._fps.get(run.video_id, run.fps)})
                for run in self._rows.runs
            ),
            failed=tuple(self._failed.values()),
        )
        text = commit.model_dump_json(indent=1) + "\n"
        atomic_write_bytes(self._layout.commit(self._unit), text.encode())
        return commit

    def abort(self) -> None:
        """Remove what was written; without effect after ``commit``."""
        self._rows.discard()

    def __enter__(self) -> UnitFrameWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


class _RowFile:
    """An Arrow IPC file that grows by whole batches of ``ROWS_PER_BATCH`` rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.runs: list[StoredVideo] = []
        self._ids: list[str] = []
        self._indices: list[int] = []
        self._jpegs: list[bytes] = []
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # a writer that is still dying keeps its own file
            self._file = path.open("wb")
        self._ipc = pa.ipc.new_file(self._file, STORE_SCHEMA)

    def add(self, run: StoredVideo, jpegs: Iterable[bytes]) -> None:
        """Add the frames of ``run``, which begins at the present row."""
        self._note(run)
        for offset, jpeg in enumerate(jpegs):
            self._ids.append(run.video_id)
            self._indices.append(run.first_frame + offset)
            self._jpegs.append(jpeg)
            self.count += 1
            if len(self._jpegs) == ROWS_PER_BATCH:
                self._flush()

    def _note(self, run: StoredVideo) -> None:
        if run.frame_count == 0:
            return
        if self.runs and _continues(self.runs[-1], run):
            count = self.runs[-1].frame_count + run.frame_count
            self.runs[-1] = self.runs[-1].model_copy(update={"frame_count": count})
        else:
            self.runs.append(run)

    def _flush(self) -> None:
        columns: list[list[Any]] = [self._ids, self._indices, self._jpegs]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, STORE_SCHEMA, strict=True)]
        self._ipc.write_batch(pa.record_batch(arrays, schema=STORE_SCHEMA))
        for column in columns:
            column.clear()

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            if self._jpegs:
                self._flush()
            self._ipc.close()
        finally:
            self._file.close()

    def discard(self) -> None:
        """Close without writing the rest, which a full disk would refuse, and remove the file."""
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


def _continues(before: StoredVideo, run: StoredVideo) -> bool:
    """Whether ``run`` is the next frames of the same video at the same size."""
    return (
        before.video_id == run.video_id
        and before.first_frame + before.frame_count == run.first_frame
        and (before.height, before.width) == (run.height, run.width)
    )


def _without(rows: _RowFile, dropped: set[str]) -> _RowFile:
    """Copy a closed row file, leaving out the videos in ``dropped``; takes its place."""
    kept = _RowFile(rows.path.with_name(rows.path.name + ".kept"))
    with pa.memory_map(str(rows.path)) as source:
        reader = pa.ipc.open_file(source)
        for run in rows.runs:
            if run.video_id not in dropped:
                first_row = kept.count
                kept.add(run.model_copy(update={"first_row": first_row}), _jpegs_of(reader, run))
    kept.close()
    kept.path.replace(rows.path)
    kept.path = rows.path
    return kept


def _jpegs_of(reader: pa.ipc.RecordBatchFileReader, run: StoredVideo) -> Iterator[bytes]:
    """The JPEGs of one run, one batch in memory at a time."""
    end = run.first_row + run.frame_count
    for batch in range(run.first_row // ROWS_PER_BATCH, -(-end // ROWS_PER_BATCH)):
        start = batch * ROWS_PER_BATCH
        column = reader.get_batch(batch).column("jpeg")
        for row in range(max(run.first_row, start), min(end, start + ROWS_PER_BATCH)):
            yield column[row - start].as_py()
