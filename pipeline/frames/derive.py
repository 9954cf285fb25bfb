"""Derives the index of a frame store from its commit records, once per state of the store.

The records are read twice, one at a time: first to find the sizes of the columns, then to write
the columns to files in record order. The columns are then sorted into a second set of files. At any
time, memory holds one record, and about 50 bytes per VideoRows while they are sorted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from distinit.pipeline.derived import (
    columns_are_valid,
    derive_columns,
    index_folder,
    new_column,
)
from distinit.pipeline.frames.commits import commits_key, read_commits
from distinit.pipeline.frames.index import BATCH_LOCATION, StoreIndex
from distinit.pipeline.frames.layout import StoreLayout
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import StoreCommit

__all__ = ["open_store_index"]

_VERSION = 3
_BLOCK = 65_536  # entries copied at a time

Columns = Mapping[str, np.ndarray]


def open_store_index(layout: StoreLayout, units: Sequence[int], key: str) -> StoreIndex:
    """The index of ``units``, whose ``commits_key`` is ``key``; derived on first use.

    Raises:
        FrameStoreError: A commit record is damaged, frames of a video are missing or duplicated,
            or the records no longer have the digest ``key``.
        StorageError: The folder of derived columns cannot be written.
    """
    folder = index_folder(key)
    if not columns_are_valid(folder, _VERSION):
        derive_columns(folder, _VERSION, partial(_write, layout, units, key))
    return StoreIndex.open(folder)


def _write(layout: StoreLayout, units: Sequence[int], key: str, folder: Path) -> None:
    raw_folder = folder / "raw"
    raw_folder.mkdir()
    raw = _empty_columns(raw_folder, read_commits(layout, units))
    try:
        file_bytes_U, batch_count_U = _fill(raw, read_commits(layout, units))
    except ValueError as error:  # from numpy: there are more entries than in the first pass
        raise _changed(layout) from error
    if commits_key(layout, units) != key:
        raise _changed(layout)
    _write_sorted(folder, raw)
    _copy(folder, "failed_digests_F", raw["failed"], np.argsort(raw["failed"]))
    np.save(folder / "units_U.npy", np.array(units, np.int64), allow_pickle=False)
    np.save(folder / "file_bytes_U.npy", np.array(file_bytes_U, np.int64), allow_pickle=False)
    batch_start_U = np.cumsum([0, *batch_count_U], dtype=np.int64)
    np.save(folder / "batch_start_U.npy", batch_start_U, allow_pickle=False)
    _copy(folder, "batches_B", raw["batches"], np.arange(batch_start_U[-1]))
    shutil.rmtree(raw_folder)


def _changed(layout: StoreLayout) -> FrameStoreError:
    return FrameStoreError(
        f"the commit records of the frame store {layout.root} changed while they were read",
        remedy="rerun the same command when nothing is writing to the store",
    )


def _empty_columns(folder: Path, commits: Iterable[StoreCommit]) -> dict[str, np.ndarray]:
    """Empty columns for all VideoRows [R], batches [B] and failed videos [F].

    Text columns are as wide as their longest text.
    """
    lengths = {"video_id": 0, "batches": 0, "failed": 0}
    dtypes = {name: values.dtype for name, values in _columns_of(_NO_COMMIT).items()}
    for commit in commits:
        part = _columns_of(commit)
        dtypes = {name: max(dtypes[name], part[name].dtype, key=_item_bytes) for name in dtypes}
        lengths = {name: length + len(part[name]) for name, length in lengths.items()}
    return {
        name: new_column(folder, name, lengths.get(name, lengths["video_id"]), dtype)
        for name, dtype in dtypes.items()
    }


def _fill(columns: Columns, commits: Iterable[StoreCommit]) -> tuple[list[int], list[int]]:
    """Write the contents of the commits, in order.

    Returns for each unit the size of its file in bytes, and its number of batches.
    """
    end = dict.fromkeys(columns, 0)
    file_bytes, batch_counts = [], []
    for commit in commits:
        for name, values in _columns_of(commit).items():
            columns[name][end[name] : end[name] + len(values)] = values
            end[name] += len(values)
        file_bytes += [entry.size for entry in commit.files.values()]
        batch_counts.append(len(commit.batches))
    return file_bytes, batch_counts


def _columns_of(commit: StoreCommit) -> dict[str, np.ndarray]:
    """Columns of one commit: its VideoRows [R], its batches [B], and failed videos' digests [F]."""
    videos = commit.videos
    return {
        "video_id": np.array([rows.video_id.encode() for rows in videos], np.bytes_),
        "digest": np.array([rows.digest.encode() for rows in videos], np.bytes_),
        "height": np.array([rows.height for rows in videos], np.int32),
        "width": np.array([rows.width for rows in videos], np.int32),
        "fps": np.array([rows.fps for rows in videos], np.float64),
        "first_frame": np.array([rows.first_frame for rows in videos], np.int64),
        "frame_count": np.array([rows.frame_count for rows in videos], np.int64),
        "first_row": np.array([rows.first_row for rows in videos], np.int64),
        "unit": np.full(len(videos), commit.unit, np.int64),
        "batches": np.array(
            [tuple(batch.model_dump().values()) for batch in commit.batches], BATCH_LOCATION
        ),
        "failed": np.array([video.digest.encode() for video in commit.failed], np.bytes_),
    }


_NO_COMMIT = StoreCommit(unit=0, files={}, videos=())


def _item_bytes(dtype: np.dtype) -> int:
    return dtype.itemsize


def _write_sorted(folder: Path, raw: Columns) -> None:
    """Write the columns [V] and [R] of a StoreIndex. Raises FrameStoreError for gaps."""
    order_R = np.lexsort((raw["first_frame"], raw["video_id"]))
    start_V = _starts(raw["video_id"], order_R)
    _refuse_gaps(raw, order_R, start_V)
    for name in ("first_frame", "first_row", "unit"):
        _copy(folder, f"{name}_R", raw[name], order_R)
    order_V = order_R[start_V]
    for name, column in (
        ("video_ids_V", "video_id"),
        ("digests_V", "digest"),
        ("heights_V", "height"),
        ("widths_V", "width"),
        ("fps_V", "fps"),
    ):
        _copy(folder, name, raw[column], order_V)
    rows_start_V = np.append(start_V, len(order_R)).astype(np.int64)
    np.save(folder / "rows_start_V.npy", rows_start_V, allow_pickle=False)
    count_R = raw["frame_count"][order_R]
    count_V = np.add.reduceat(count_R, start_V) if len(count_R) else count_R
    np.save(folder / "frame_count_V.npy", count_V, allow_pickle=False)
    del count_R, count_V, rows_start_V, start_V, order_R
    digest_order_V = np.argsort(np.load(folder / "digests_V.npy", mmap_mode="r"), kind="stable")
    np.save(folder / "digest_order_V.npy", digest_order_V, allow_pickle=False)


def _starts(video_id_R: np.ndarray, order_R: np.ndarray) -> np.ndarray:
    """Positions in ``order_R`` where the next video begins."""
    begins_R = np.ones(len(order_R), bool)
    for block in _blocks(1, len(order_R)):
        before = slice(block.start - 1, block.stop - 1)
        begins_R[block] = video_id_R[order_R[block]] != video_id_R[order_R[before]]
    return np.flatnonzero(begins_R)


def _copy(folder: Path, name: str, values_N: np.ndarray, order_M: np.ndarray) -> None:
    """Write ``values_N[order_M]`` as a column."""
    out_M = new_column(folder, name, len(order_M), values_N.dtype)
    for block in _blocks(0, len(order_M)):
        out_M[block] = values_N[order_M[block]]


def _blocks(first: int, end: int) -> Iterator[slice]:
    return (slice(at, min(at + _BLOCK, end)) for at in range(first, end, _BLOCK))


def _refuse_gaps(raw: Columns, order_R: np.ndarray, start_V: np.ndarray) -> None:
    first_frame_R = raw["first_frame"][order_R]
    expected_R = np.zeros_like(first_frame_R)
    expected_R[1:] = first_frame_R[:-1] + raw["frame_count"][order_R][:-1]
    expected_R[start_V] = 0
    wrong = np.flatnonzero(first_frame_R != expected_R)
    if wrong.size:
        at = int(wrong[0])
        raise FrameStoreError(
            f"frames of video {raw['video_id'][order_R[at]].decode()} are missing or duplicated",
            expected=f"rows that start with frame {expected_R[at]}",
            found=f"rows that start with frame {first_frame_R[at]}",
            remedy="finish the store: rerun the command that wrote it",
        )
