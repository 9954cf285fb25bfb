"""Parses ffmpeg's lists of frames and packets: framecrc output and printed timestamps."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = ["PacketTable", "StreamTables", "TimestampList"]

_NO_PTS = -(1 << 63)
_KEY, _CORRUPT, _DISCARD = 1, 2, 4  # AV_PKT_FLAG_*


class PacketTable:
    """One stream of a framecrc output: its time base, frame size, and the times of its packets.

    Lines look like ``#tb 0: 1/12800``, ``#dimensions 0: 640x480`` and
    ``0, dts, pts, duration, size, 0xcrc, F=0x0``; ffmpeg omits the flags of a packet that is a key
    frame and nothing else.

    ``count``: packets that have content and are shown. ``listed``: all packets. ``end_dts``: where
    the last packet in decoding order ends, whether it has content or not.
    """

    def __init__(self) -> None:
        self.count = 0
        self.listed = 0
        self.marked_corrupt = 0
        self.width = 0
        self.height = 0
        self.time_base: Fraction | None = None
        self.first_pts: int | None = None
        self.end_pts: int | None = None
        self.end_dts = 0
        self._pts = array("q")
        self._durations = array("q")
        self._ready = threading.Event()

    def feed(self, lines: Iterable[bytes], limit: int | None = None) -> bool:
        """Read all lines; return False, and stop, after more than ``limit`` packets."""
        try:
            for line in lines:
                self.add(line)
                if limit is not None and self.listed > limit:
                    return False
            return True
        finally:
            self.end()

    def add(self, line: bytes) -> None:
        """Parse one line of the output."""
        if line.startswith(b"#"):
            self._header(line)
        elif line:
            self._packet(line)
            if not self._ready.is_set():
                self._ready.set()

    def end(self) -> None:
        """There are no more lines."""
        self._ready.set()

    def wait_for_header(self) -> bool:
        """Wait for the first packet or the end; True if there was a packet."""
        self._ready.wait()
        return self.count > 0 or self.time_base is not None

    @property
    def span_seconds(self) -> float:
        """Seconds from the start of the first packet to the end of the last."""
        if self.time_base is None or self.first_pts is None or self.end_pts is None:
            return 0.0
        return float((self.end_pts - self.first_pts) * self.time_base)

    @property
    def reach_seconds(self) -> float:
        """The larger of the span and the end time, to compare with a declared duration.

        Containers disagree on whether the time before the first packet is part of the duration.
        """
        if self.time_base is None or self.end_pts is None:
            return 0.0
        return max(self.span_seconds, float(self.end_pts * self.time_base))

    def times(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(pts_N, duration_N) of the packets that are shown, in file order.

        Both are in units of the time base; 0 is an unknown duration.
        """
        return np.array(self._pts, dtype=np.int64), np.array(self._durations, dtype=np.int64)

    def _header(self, line: bytes) -> None:
        key, _, value = line.partition(b": ")
        if key.startswith(b"#tb "):
            self.time_base = Fraction(value.decode())
        elif key.startswith(b"#dimensions "):
            width, _, height = value.partition(b"x")
            self.width, self.height = int(width), int(height)

    def _packet(self, line: bytes) -> None:
        fields = line.split(b",", 6)
        dts, pts, duration, size = (int(field) for field in fields[1:5])
        flags = _flags(fields[6]) if len(fields) > 6 else _KEY
        if pts == _NO_PTS:  # AVI has no presentation times
            pts = dts
        duration = max(0, duration)
        self.listed += 1
        self.end_dts = max(self.end_dts, dts + max(duration, 1))
        if flags & _DISCARD:
            return
        self.marked_corrupt += bool(flags & _CORRUPT)
        if size > 0:  # AVI fills gaps with packets of 0 bytes
            self.count += 1
            self._pts.append(pts)
            self._durations.append(duration)
        if self.first_pts is None or self.end_pts is None:
            self.first_pts, self.end_pts = pts, pts + duration
            return
        self.first_pts = min(self.first_pts, pts)
        self.end_pts = max(self.end_pts, pts + duration)


class StreamTables:
    """A framecrc output of several streams: ``tables`` maps stream number -> PacketTable."""

    def __init__(self) -> None:
        self.tables: dict[int, PacketTable] = {}
        self._ready = threading.Event()

    def feed(self, lines: Iterable[bytes], limit: int | None = None) -> bool:
        """Read all lines; return False, and stop, after over ``limit`` packets of one stream."""
        table, start = PacketTable(), b""  # of the previous packet: most files have one stream
        try:
            for line in lines:
                if not start or not line.startswith(start):
                    number = _stream_of(line)
                    if number is None:
                        continue
                    table = self.tables.setdefault(number, PacketTable())
                    start = b"" if line.startswith(b"#") else b"%d," % number
                table.add(line)
                if limit is not None and table.listed > limit:
                    return False
                if start and not self._ready.is_set():
                    self._ready.set()
            return True
        finally:
            self._ready.set()
            for table in self.tables.values():
                table.end()

    def wait_for_headers(self) -> int:
        """Wait for the first packet or the end; the number of streams."""
        self._ready.wait()
        return len(self.tables)

    @property
    def main_stream(self) -> int:
        """Number of the main stream: the first that has at least half as many packets as any other.

        A still preview may be stored as a separate stream, before the video itself.
        """
        most = max((table.count for table in self.tables.values()), default=0)
        return min((n for n, table in self.tables.items() if 2 * table.count >= most), default=0)


def _stream_of(line: bytes) -> int | None:
    """The stream number in "#tb 0: 1/12800" or "0, dts, ..."; None if the line has none."""
    words = line.split(b":", 1)[0].split() if line.startswith(b"#") else line.split(b",", 1)
    number = words[1] if line.startswith(b"#") and len(words) == 2 else words[0]
    return int(number) if number.strip().isdigit() else None


def _flags(field: bytes) -> int:
    """Packet flags in the last field of a line, as " F=0x4"; ffmpeg omits those of a key frame.

    Side data may come before the flags, or instead of them: " S=1, ...".
    """
    _, found, text = field.partition(b"F=0x")
    return int(text.split(b",", 1)[0], 16) if found else _KEY


class TimestampList:
    """Timestamps of decoded frames, in order, as the metadata filter prints them.

    Lines look like ``frame:12   pts:6144   pts_time:0.48``; other lines are skipped. The filter
    restarts its frame number after a change of resolution, so the number is not used.
    ``untimed``: frames without a timestamp.
    """

    def __init__(self) -> None:
        self._pts = array("q")
        self._arrived = threading.Condition()
        self._ended = False
        self.untimed = 0

    def __len__(self) -> int:
        return len(self._pts)

    def feed(self, lines: Iterable[bytes], limit: int) -> bool:
        """Read all lines; return False, and stop, after more than ``limit`` timestamps."""
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
        """Wait for the timestamps (int64) of ``count`` frames from ``start``; fewer at the end."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._ended or len(self._pts) >= start + count)
            return np.array(self._pts[start : start + count], dtype=np.int64)
