"""Derive the index of a frame store from its commit records: once, and without holding them.

The records are read one after the other, twice: to know how large the columns become, and to
write them, in order of the records, to files. Sorted, they are written again. What is in memory at
a time is one record, and some 50 bytes for each run of frames while they are sorted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from distinit.pipeline.derived import (
    columns_are_sound,
    derive_columns,
    index_folder,
    new_column,
)
from distinit.pipeline.frames.commits import commits_key, read_commits
from distinit.pipeline.frames.index import BATCH_PLACE, RunIndex
from distinit.pipeline.frames.layout import StoreLayout
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import StoreCommit

__all__ = ["open_run_index"]

_VERSION = 2
_BLOCK = 65_536  # rows copied at a time

Columns = Mapping[str, np.ndarray]


def open_run_index(layout: StoreLayout, units: Sequence[int], key: str) -> RunIndex:
    """The index of ``units``, whose ``commits_key`` is ``key``; derived on first use.

    Raises:
        FrameStoreError: A commit record is damaged, frames of a video are missing or there twice,
            or the records are no longer those of ``key``.
        StorageError: The folder of derived columns cannot be written.
    """
    folder = index_folder(key)
    if not columns_are_sound(folder, _VERSION):
        derive_columns(folder, _VERSION, partial(_write, layout, units, key))
    return RunIndex.open(folder)


def _write(layout: StoreLayout, units: Sequence[int], key: str, folder: Path) -> None:
    raw_folder = folder / "raw"
    raw_folder.mkdir()
    raw = _empty_columns(raw_folder, read_commits(layout, units))
    try:
        file_bytes_U, batches_U = _fill(raw, read_commits(layout, units))
    except ValueError as error:  # of numpy: more rows than a moment ago
        raise _changed(layout) from error
    if commits_key(layout, units) != key:
        raise _changed(layout)
    _write_sorted(folder, raw)
    _copy(folder, "failed_digests_F", raw["failed"], np.argsort(raw["failed"]))
    np.save(folder / "units_U.npy", np.array(units, np.int64), allow_pickle=False)
    np.save(folder / "file_bytes_U.npy", np.array(file_bytes_U, np.int64), allow_pickle=False)
    batch_start_U = np.cumsum([0, *batches_U], dtype=np.int64)
    np.save(folder / "batch_start_U.npy", batch_start_U, allow_pickle=False)
    _copy(folder, "batches_B", raw["batches"], np.arange(batch_start_U[-1]))
    shutil.rmtree(raw_folder)


def _changed(layout: StoreLayout) -> FrameStoreError:
    return FrameStoreError(
        f"the commit records of the frame store {layout.root} changed while they were read",
        remedy="run the same command again when nothing writes to the store",
    )


def _empty_columns(folder: Path, commits: Iterable[StoreCommit]) -> dict[str, np.ndarray]:
    """Columns for all runs [R], all batches [B] and all failed videos [F], as wide as their
    longest texts."""
    rows = {"video_id": 0, "batches": 0, "failed": 0}
    kinds = {name: values.dtype for name, values in _columns_of(_NO_COMMIT).items()}
    for commit in commits:
        part = _columns_of(commit)
        kinds = {name: max(kinds[name], part[name].dtype, key=_bytes_of) for name in kinds}
        rows = {name: count + len(part[name]) for name, count in rows.items()}
    return {
        name: new_column(folder, name, rows.get(name, rows["video_id"]), kind)
        for name, kind in kinds.items()
    }


def _fill(columns: Columns, commits: Iterable[StoreCommit]) -> tuple[list[int], list[int]]:
    """Write what the commits say, one after the other; of each one's file the size in bytes, and
    the number of batches."""
    at = dict.fromkeys(columns, 0)
    sizes, batches = [], []
    for commit in commits:
        for name, values in _columns_of(commit).items():
            columns[name][at[name] : at[name] + len(values)] = values
            at[name] += len(values)
        sizes += [entry.size for entry in commit.files.values()]
        batches.append(len(commit.batches))
    return sizes, batches


def _columns_of(commit: StoreCommit) -> dict[str, np.ndarray]:
    """Columns [R] of one commit's runs, its batches [B], and the digests [F] of videos that
    failed."""
    runs = commit.videos
    return {
        "video_id": np.array([run.video_id.encode() for run in runs], np.bytes_),
        "digest": np.array([run.digest.encode() for run in runs], np.bytes_),
        "height": np.array([run.height for run in runs], np.int32),
        "width": np.array([run.width for run in runs], np.int32),
        "fps": np.array([run.fps for run in runs], np.float64),
        "first_frame": np.array([run.first_frame for run in runs], np.int64),
        "frame_count": np.array([run.frame_count for run in runs], np.int64),
        "first_row": np.array([run.first_row for run in runs], np.int64),
        "unit": np.full(len(runs), commit.unit, np.int64),
        "batches": np.array(
            [tuple(place.model_dump().values()) for place in commit.batches], BATCH_PLACE
        ),
        "failed": np.array([video.digest.encode() for video in commit.failed], np.bytes_),
    }


_NO_COMMIT = StoreCommit(unit=0, files={}, videos=())


def _bytes_of(kind: np.dtype) -> int:
    return kind.itemsize


def _write_sorted(folder: Path, raw: Columns) -> None:
    """The columns of RunIndex, by (video, first frame). Raises FrameStoreError for gaps."""
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
    run_start_V = np.append(start_V, len(order_R)).astype(np.int64)
    np.save(folder / "run_start_V.npy", run_start_V, allow_pickle=False)
    count_R = raw["frame_count"][order_R]
    count_V = np.add.reduceat(count_R, start_V) if len(count_R) else count_R
    np.save(folder / "frame_count_V.npy", count_V, allow_pickle=False)
    del count_R, count_V, run_start_V, start_V, order_R
    digest_order_V = np.argsort(np.load(folder / "digests_V.npy", mmap_mode="r"), kind="stable")
    np.save(folder / "digest_order_V.npy", digest_order_V, allow_pickle=False)


def _starts(video_id_R: np.ndarray, order_R: np.ndarray) -> np.ndarray:
    """Places in ``order_R`` at which another video begins."""
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
            f"frames of video {raw['video_id'][order_R[at]].decode()} are missing or there twice",
            expected=f"a run of frames from {expected_R[at]}",
            found=f"one from {first_frame_R[at]}",
            remedy="finish the extraction: run the same command again",
        )
