"""The exact index of frames and packets: ffmpeg's framecrc lists and its printed timestamps."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = ["PacketTable", "TimestampList", "tables_by_stream"]

_NO_PTS = -(1 << 63)


class PacketTable:
    """What a framecrc output says: time base, picture size, and how many packets span when.

    Lines look like ``#tb 0: 1/12800``, ``#dimensions 0: 640x480`` and
    ``0, dts, pts, duration, size, 0xcrc``.
    """

    def __init__(self) -> None:
        self.count = 0
        self.width = 0
        self.height = 0
        self.time_base: Fraction | None = None
        self.first_pts: int | None = None
        self.end_pts: int | None = None
        self._ready = threading.Event()

    def feed(self, lines: Iterable[bytes], limit: int | None = None) -> bool:
        """Read lines until they end; False if more than ``limit`` packets came."""
        try:
            for line in lines:
                if line.startswith(b"#"):
                    self._header(line)
                elif line:
                    self._ready.set()
                    self._packet(line)
                    if limit is not None and self.count > limit:
                        return False
            return True
        finally:
            self._ready.set()

    def wait_for_header(self) -> bool:
        """Wait until the first packet or the end; True if there was a packet."""
        self._ready.wait()
        return self.count > 0 or self.time_base is not None

    @property
    def span_seconds(self) -> float:
        """From the first packet's start to the last one's end, seconds."""
        if self.time_base is None or self.first_pts is None or self.end_pts is None:
            return 0.0
        return float((self.end_pts - self.first_pts) * self.time_base)

    @property
    def reach_seconds(self) -> float:
        """The larger of the span and the end's own time, to compare with a declared duration.

        Containers disagree on whether a late start counts as part of their duration.
        """
        if self.time_base is None or self.end_pts is None:
            return 0.0
        return max(self.span_seconds, float(self.end_pts * self.time_base))

    def _header(self, line: bytes) -> None:
        key, _, value = line.partition(b": ")
        if key.startswith(b"#tb "):
            self.time_base = Fraction(value.decode())
        elif key.startswith(b"#dimensions "):
            width, _, height = value.partition(b"x")
            self.width, self.height = int(width), int(height)

    def _packet(self, line: bytes) -> None:
        dts, pts, duration, size = (int(field) for field in line.split(b",", 5)[1:5])
        if pts == _NO_PTS:  # AVI stores none
            pts = dts
        duration = max(0, duration)
        self.count += size > 0  # AVI fills gaps with packets of 0 bytes
        if self.first_pts is None or self.end_pts is None:
            self.first_pts, self.end_pts = pts, pts + duration
            return
        self.first_pts = min(self.first_pts, pts)
        self.end_pts = max(self.end_pts, pts + duration)


def tables_by_stream(lines: Iterable[bytes]) -> dict[int, PacketTable]:
    """Split a framecrc output of several streams into one table for each."""
    lines_of: dict[int, list[bytes]] = {}
    for line in lines:
        head = line.split(b":", 1)[0].split()[1:2] if line.startswith(b"#") else line.split(b",", 1)
        if head and head[0].strip().isdigit():
            lines_of.setdefault(int(head[0]), []).append(line)
    tables = {stream: PacketTable() for stream in lines_of}
    for stream, table in tables.items():
        table.feed(lines_of[stream])
    return tables


class TimestampList:
    """Timestamps of decoded frames, in order, as the metadata filter prints them.

    Lines look like ``frame:12   pts:6144   pts_time:0.48``; others are skipped. The filter
    counts anew after a change of resolution, so its frame number is not used.
    """

    def __init__(self) -> None:
        self._pts = array("q")
        self._arrived = threading.Condition()
        self._ended = False
        self.untimed = 0

    def __len__(self) -> int:
        return len(self._pts)

    def feed(self, lines: Iterable[bytes], limit: int) -> bool:
        """Read lines until they end; False if more than ``limit`` timestamps came."""
        try:
            for line in lines:
                if not line.startswith(b"frame:"):
                    continue
                text = line.split(b"pts:", 1)[1].split(None, 1)[0]
                with self._arrived:
                    self.untimed += text == b"NOPTS"
                    self._pts.append(0 if text == b"NOPTS" else int(text))
                    self._arrived.notify()
                if len(self._pts) > limit:
                    return False
            return True
        finally:
            with self._arrived:
                self._ended = True
                self._arrived.notify()

    def wait_for(self, start: int, count: int) -> NDArray[np.int64]:
        """int64 timestamps of frames ``start`` .. ``start + count - 1``; fewer at the end."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._ended or len(self._pts) >= start + count)
            return np.array(self._pts[start : start + count], dtype=np.int64)
