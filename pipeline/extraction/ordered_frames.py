"""Lets several videos be decoded at once, and writes their frames one video after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.frames.writer import EncodedFrames, UnitFrameWriter

__all__ = ["OrderedFrames", "WaitingRoom"]

_MAX_WAITING_BYTES = 256 << 20  # of one worker

type Decision = Callable[[UnitFrameWriter], None]
"""What to record about a video whose frames have all been appended."""


@dataclass(slots=True)
class _Waiting:
    """A video whose turn has not come."""

    frames: list[EncodedFrames] = field(default_factory=list)
    decision: Decision | None = None
    dropped: bool = False


class WaitingRoom:
    """JPEGs of one worker that wait in memory for earlier videos of their unit.

    ``changed`` is the lock of all units of the worker: it is notified when there is more room.
    """

    def __init__(self, max_bytes: int = _MAX_WAITING_BYTES) -> None:
        self.changed = threading.Condition()
        self.byte_count = 0
        self._max_bytes = max_bytes

    @property
    def is_full(self) -> bool:
        """Whether nothing more may wait."""
        return self.byte_count >= self._max_bytes


class OrderedFrames:
    """Appends the frames of several videos to one unit, as if they were decoded in turn.

    So the file does not depend on which video is decoded faster. The frames of a video that is not
    yet the first wait as JPEGs; while ``room`` is full, ``append`` waits, except for the first
    video. All methods may be called by any thread.
    """

    def __init__(
        self,
        unit: UnitFrameWriter,
        videos: Sequence[PlannedRows],
        room: WaitingRoom,
    ) -> None:
        """``unit`` must not be used by others until every video is finished."""
        self._unit = unit
        self._videos = videos
        self._room = room
        self._changed = room.changed
        self._first = 0  # position of the video whose frames are written as they come
        self._waiting: dict[int, _Waiting] = {}
        self._stopped = False

    def append(self, position: int, first_frame: int, frames_NHWC: np.ndarray) -> None:
        """Add the next frames of the video at ``position``; as UnitFrameWriter.append."""
        video = self._videos[position]
        encoded = self._unit.encode(
            video.video_id, video.digest, first_frame, frames_NHWC, video.video.probe.fps
        )
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(position))
            waiting = self._waiting_of(position)
            if self._stopped or waiting.dropped:
                return
            if position == self._first:
                self._unit.append_encoded(encoded)
            else:
                waiting.frames.append(encoded)
                self._room.byte_count += encoded.byte_count

    def drop(self, position: int) -> None:
        """Drop all frames of a video, those appended so far and those appended later."""
        with self._changed:
            waiting = self._waiting_of(position)
            waiting.dropped = True
            self._forget(waiting)
            if position == self._first:
                self._unit.discard_video(self._videos[position].video_id)

    def is_dropped(self, position: int) -> bool:
        """Whether ``drop`` was called for a video."""
        with self._changed:
            return self._waiting_of(position).dropped

    def finish(self, position: int, decision: Decision) -> None:
        """All frames of a video were appended: call ``decision`` when its turn has come."""
        with self._changed:
            self._waiting_of(position).decision = decision
            while (first := self._waiting.get(self._first)) is not None:
                self._write(first)
                if first.decision is None:
                    break
                first.decision(self._unit)
                del self._waiting[self._first]
                self._first += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Let every thread that waits in ``append`` continue; no more frames are taken."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """As ``stop``, and drop the frames that wait: this unit is not committed."""
        with self._changed:
            self.stop()
            for waiting in self._waiting.values():
                self._forget(waiting)

    def _has_room(self, position: int) -> bool:
        return self._stopped or position == self._first or not self._room.is_full

    def _waiting_of(self, position: int) -> _Waiting:
        return self._waiting.setdefault(position, _Waiting())

    def _write(self, waiting: _Waiting) -> None:
        """Write what a video that is now the first has waiting."""
        if waiting.dropped:
            self._unit.discard_video(self._videos[self._first].video_id)
        for encoded in waiting.frames:
            self._unit.append_encoded(encoded)
        self._forget(waiting)

    def _forget(self, waiting: _Waiting) -> None:
        self._room.byte_count -= sum(encoded.byte_count for encoded in waiting.frames)
        waiting.frames.clear()
        self._changed.notify_all()
