"""Presentation times of rows, read from the frames tables of a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.tables import column
from distinit.pipeline.cache.unit_tables import contradiction, read_frames
from distinit.schemas.teacher import TeacherRecord

__all__ = ["FrameTimes", "seconds_of"]


class FrameTimes:
    """Reads presentation times; the times of one unit stay in memory for the next call."""

    def __init__(self, layout: CacheLayout, record: TeacherRecord, capacity: int) -> None:
        """``record``: a teacher that has committed the units that will be read."""
        self._layout = layout
        self._record = record
        self._capacity = capacity
        self._last: tuple[int, NDArray[np.float64]] | None = None

    def pts_seconds(self, row_N: np.ndarray) -> NDArray[np.float64]:
        """float64 [N], in the order of the rows, which are used ones of committed units.

        Raises CacheCorruptError if a frames table is missing or damaged.
        """
        seconds_N = np.empty(len(row_N))
        unit_N = row_N // self._capacity
        for unit in np.unique(unit_N).tolist():
            where_N = unit_N == unit
            seconds_N[where_N] = self._of_unit(unit)[row_N[where_N] - unit * self._capacity]
        return seconds_N

    def _of_unit(self, unit: int) -> NDArray[np.float64]:
        """float64 [capacity], NaN in unused rows."""
        last = self._last  # another thread may replace it
        if last is None or last[0] != unit:
            commit = read_commit(self._layout, self._record, unit)
            table = read_frames(self._layout, commit, self._capacity)
            seconds_R = np.full(self._capacity, np.nan)
            seconds_R[column(table, "row") - unit * self._capacity] = seconds_of(
                table, self._layout.frames(unit)
            )
            self._last = last = (unit, seconds_R)
        return last[1]


def seconds_of(table: pa.Table, path: Path) -> NDArray[np.float64]:
    """Presentation times [N] of the frames table that was read from ``path``.

    Raises CacheCorruptError for a time base of n/0.
    """
    coded = table.column("time_base").combine_chunks().dictionary_encode()
    parts = [text.split("/") for text in coded.dictionary.to_pylist()]
    if any(int(below) == 0 for _, below in parts):
        raise contradiction(path, "time bases above 0", "a division by 0")
    base_D = np.array([int(above) / int(below) for above, below in parts])
    code_N = coded.indices.to_numpy(zero_copy_only=False)
    seconds_N: NDArray[np.float64] = column(table, "pts") * base_D[code_N]
    return seconds_N
