"""The Arrow file of one unit of a frame store, written batch by batch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pyarrow as pa

from distinit.pipeline.frames.layout import ROWS_PER_BATCH
from distinit.pipeline.storage import create_partial, storage_errors
from distinit.schemas.frames import BatchLocation, VideoRows
from distinit.schemas.tables import STORE_SCHEMA

__all__ = ["RowFile", "batch_locations", "frame_checksum", "video_checksum", "without_videos"]

_FRAME_INDEX_BYTES = 8
_extend = google_crc32c.extend  # looked up once, because it is called twice per frame


def video_checksum(video_id: str) -> int:
    """crc32c of a video's id, with which the checksums of all its frames begin."""
    return int(google_crc32c.value(video_id.encode()))


def frame_checksum(video: int, frame: int, jpeg: bytes) -> int:
    """crc32c over video, frame index and JPEG, so that swapped rows are detected like flipped bits.

    ``video`` is the result of ``video_checksum``.
    """
    begun = _extend(video, frame.to_bytes(_FRAME_INDEX_BYTES, "little"))
    checksum: int = _extend(begun, jpeg)
    return checksum


class RowFile:
    """An Arrow IPC file that is written in batches of ``ROWS_PER_BATCH`` rows.

    ``videos`` lists its contents as VideoRows, in row order; ``row_count`` is the number of rows.
    It is a new file at ``path``, to be renamed to ``final_path`` once it is closed. Raises
    StorageError if the disk cannot be written.
    """

    def __init__(self, final_path: Path) -> None:
        self.final_path = final_path
        self.row_count = 0
        self.videos: list[VideoRows] = []
        self._ids: list[str] = []
        self._indices: list[int] = []
        self._jpegs: list[bytes] = []
        self._checksums: list[int] = []
        with storage_errors(final_path):
            final_path.parent.mkdir(parents=True, exist_ok=True)
            # A unique name: a writer that is taken for dead may still be writing this unit.
            self.path, descriptor = create_partial(final_path)
            self._file = os.fdopen(descriptor, "wb")
        self._ipc = pa.ipc.new_file(self._file, STORE_SCHEMA)

    def add(self, rows: VideoRows, jpegs: Iterable[bytes]) -> None:
        """Append ``rows``, whose first row must be ``row_count``, with one JPEG per frame."""
        self._add_to_videos(rows)
        video = video_checksum(rows.video_id)
        for frame, jpeg in enumerate(jpegs, start=rows.first_frame):
            self._ids.append(rows.video_id)
            self._indices.append(frame)
            self._jpegs.append(jpeg)
            self._checksums.append(frame_checksum(video, frame, jpeg))
            self.row_count += 1
            if len(self._jpegs) == ROWS_PER_BATCH:
                self._flush()

    def _add_to_videos(self, rows: VideoRows) -> None:
        if rows.frame_count == 0:
            return
        if self.videos and _continues(self.videos[-1], rows):
            frame_count = self.videos[-1].frame_count + rows.frame_count
            self.videos[-1] = self.videos[-1].model_copy(update={"frame_count": frame_count})
        else:
            self.videos.append(rows)

    def _flush(self) -> None:
        columns: list[list[Any]] = [self._ids, self._indices, self._jpegs, self._checksums]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, STORE_SCHEMA, strict=True)]
        self._ipc.write_batch(pa.record_batch(arrays, schema=STORE_SCHEMA))
        for column in columns:
            column.clear()

    def close(self) -> None:
        """Write the remaining rows and close the file. Idempotent."""
        if self._file.closed:
            return
        try:
            if self._jpegs:
                self._flush()
            self._ipc.close()
        finally:
            self._file.close()

    def discard(self) -> None:
        """Close without writing the remaining rows (the disk may be full), and remove the file."""
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


def _continues(before: VideoRows, rows: VideoRows) -> bool:
    """Whether ``rows`` are the next frames of the same video at the same size."""
    return (
        before.video_id == rows.video_id
        and before.first_frame + before.frame_count == rows.first_frame
        and (before.height, before.width) == (rows.height, rows.width)
    )


def without_videos(file: RowFile, dropped: set[str]) -> RowFile:
    """Replace a closed row file with a copy that lacks the videos in ``dropped``."""
    kept = RowFile(file.final_path)
    try:
        with pa.memory_map(str(file.path)) as source:
            reader = pa.ipc.open_file(source)
            for rows in file.videos:
                if rows.video_id not in dropped:
                    moved = rows.model_copy(update={"first_row": kept.row_count})
                    kept.add(moved, _jpegs_of(reader, rows))
        kept.close()
    except BaseException:
        kept.discard()
        raise
    file.discard()
    return kept


def _jpegs_of(reader: pa.ipc.RecordBatchFileReader, rows: VideoRows) -> Iterator[bytes]:
    """The JPEGs of consecutive rows, with one batch in memory at a time."""
    end = rows.first_row + rows.frame_count
    for batch in range(rows.first_row // ROWS_PER_BATCH, -(-end // ROWS_PER_BATCH)):
        start = batch * ROWS_PER_BATCH
        column = reader.get_batch(batch).column("jpeg")
        for row in range(max(rows.first_row, start), min(end, start + ROWS_PER_BATCH)):
            yield column[row - start].as_py()


def batch_locations(path: Path) -> Iterator[BatchLocation]:
    """Where the columns of each batch are, in a file that this process has just written."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        base = source.read_buffer().address
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            _, offsets, jpegs = batch.column("jpeg").buffers()
            checksums = batch.column("crc32c").buffers()[1]
            yield BatchLocation(
                offsets=offsets.address - base,
                jpegs=jpegs.address - base,
                checksums=checksums.address - base,
            )
