"""The rows of one unit of a frame store, as an Arrow file that grows by whole batches."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pyarrow as pa

from distinit.pipeline.frames.layout import ROWS_PER_BATCH
from distinit.pipeline.storage import open_for_writing, storage_errors
from distinit.schemas.frames import BatchPlace, VideoRows
from distinit.schemas.tables import STORE_SCHEMA

__all__ = ["RowFile", "frame_checksum", "places_of", "video_checksum", "without_videos"]

_FRAME_BYTES = 8
_extend = google_crc32c.extend  # looked up once: it is called twice a frame


def video_checksum(video_id: str) -> int:
    """What the checksums of all frames of a video begin with."""
    return int(google_crc32c.value(video_id.encode()))


def frame_checksum(video: int, frame: int, jpeg: bytes) -> int:
    """crc32c that says which frame a JPEG is: exchanged rows are noticed as flipped bits are.

    ``video`` is that of ``video_checksum``.
    """
    begun = _extend(video, frame.to_bytes(_FRAME_BYTES, "little"))
    checksum: int = _extend(begun, jpeg)
    return checksum


class RowFile:
    """An Arrow IPC file that grows by whole batches of ``ROWS_PER_BATCH`` rows.

    It is always a new file: what a killed writer left at ``path`` is removed, no link is followed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.runs: list[VideoRows] = []
        self._ids: list[str] = []
        self._indices: list[int] = []
        self._jpegs: list[bytes] = []
        self._checksums: list[int] = []
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # a writer that is still dying keeps its own file
            self._file = os.fdopen(open_for_writing(path, os.O_EXCL), "wb")
        self._ipc = pa.ipc.new_file(self._file, STORE_SCHEMA)

    def add(self, run: VideoRows, jpegs: Iterable[bytes]) -> None:
        """Add the frames of ``run``, which begins at the present row."""
        self._note(run)
        video = video_checksum(run.video_id)
        for frame, jpeg in enumerate(jpegs, start=run.first_frame):
            self._ids.append(run.video_id)
            self._indices.append(frame)
            self._jpegs.append(jpeg)
            self._checksums.append(frame_checksum(video, frame, jpeg))
            self.count += 1
            if len(self._jpegs) == ROWS_PER_BATCH:
                self._flush()

    def _note(self, run: VideoRows) -> None:
        if run.frame_count == 0:
            return
        if self.runs and _continues(self.runs[-1], run):
            count = self.runs[-1].frame_count + run.frame_count
            self.runs[-1] = self.runs[-1].model_copy(update={"frame_count": count})
        else:
            self.runs.append(run)

    def _flush(self) -> None:
        columns: list[list[Any]] = [self._ids, self._indices, self._jpegs, self._checksums]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, STORE_SCHEMA, strict=True)]
        self._ipc.write_batch(pa.record_batch(arrays, schema=STORE_SCHEMA))
        for column in columns:
            column.clear()

    def close(self) -> None:
        """Write the rest. Idempotent."""
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


def _continues(before: VideoRows, run: VideoRows) -> bool:
    """Whether ``run`` is the next frames of the same video at the same size."""
    return (
        before.video_id == run.video_id
        and before.first_frame + before.frame_count == run.first_frame
        and (before.height, before.width) == (run.height, run.width)
    )


def without_videos(rows: RowFile, dropped: set[str]) -> RowFile:
    """Copy a closed row file, leaving out the videos in ``dropped``; takes its place."""
    kept = RowFile(rows.path.with_name(rows.path.name + ".kept"))
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


def _jpegs_of(reader: pa.ipc.RecordBatchFileReader, run: VideoRows) -> Iterator[bytes]:
    """The JPEGs of one run, one batch in memory at a time."""
    end = run.first_row + run.frame_count
    for batch in range(run.first_row // ROWS_PER_BATCH, -(-end // ROWS_PER_BATCH)):
        start = batch * ROWS_PER_BATCH
        column = reader.get_batch(batch).column("jpeg")
        for row in range(max(run.first_row, start), min(end, start + ROWS_PER_BATCH)):
            yield column[row - start].as_py()


def places_of(path: Path) -> Iterator[BatchPlace]:
    """Where the columns of each batch lie, of a file that was written here just now."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        base = source.read_buffer().address
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            _, offsets, jpegs = batch.column("jpeg").buffers()
            checksums = batch.column("crc32c").buffers()[1]
            yield BatchPlace(
                offsets=offsets.address - base,
                jpegs=jpegs.address - base,
                checksums=checksums.address - base,
            )
