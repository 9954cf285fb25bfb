"""Selects the decoded frames that become rows: by index, by count or by presentation time."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from distinit.schemas.video import SamplingConfig

__all__ = ["Sampler", "count_rows"]


class Sampler:
    """Selects the rows of one video from its blocks, which must come in order.

    The selection does not depend on where the video is cut into blocks. Mode ``per_video`` depends
    on ``frame_count``, the number of frames in the video, as probed or as counted by decoding.
    """

    def __init__(self, config: SamplingConfig, frame_count: int) -> None:
        self._config = config
        self._next = 0
        by_time = config.mode == "fps" and config.fps is not None
        self._slots = _Slots(Fraction(str(config.fps))) if by_time else None
        part = np.arange(min(config.per_video or 0, frame_count), dtype=np.int64)
        # The middles of equal parts, in integers, so that no rounding differs between machines.
        self._middles = (2 * part + 1) * frame_count // (2 * max(len(part), 1))

    def pick(self, pts_N: np.ndarray, time_base: Fraction) -> np.ndarray:
        """Indices (int64, ascending, 0-based in the video) of the next frames that become rows.

        Args:
            pts_N: Presentation times of the next frames, in display order.
            time_base: Seconds per unit of ``pts_N``.
        """
        index_N = np.arange(self._next, self._next + len(pts_N), dtype=np.int64)
        self._next += len(pts_N)
        if self._slots is not None:
            index_N = index_N[self._slots.opened_by(pts_N.tolist(), time_base)]
        elif self._config.mode == "stride":
            index_N = index_N[index_N % self._config.stride == 0]
        elif self._config.mode == "per_video":
            index_N = index_N[np.isin(index_N, self._middles)]
        return index_N


class _Slots:
    """Slots of 1/fps seconds from the first frame on; the first frame in each slot is selected.

    The start of a slot is rounded down to the container's clock: with a clock of milliseconds, the
    frames of a 30 fps video are shown at 0, 33, 67, 100. Where times run back by more than a slot,
    as in joined recordings, the slots start over from there.
    """

    def __init__(self, fps: Fraction) -> None:
        self._fps = fps
        self._origin: int | None = None
        self._slot = 0

    def opened_by(self, pts: Iterable[int], time_base: Fraction) -> np.ndarray:
        """bool [N]: whether each of the next frames opens a slot. Integer arithmetic only."""
        slots_per_tick = self._fps * time_base
        above, below = slots_per_tick.numerator, slots_per_tick.denominator
        opened = []
        for time in pts:
            origin = time if self._origin is None else self._origin
            # The largest k with floor(k / slots_per_tick) <= time - origin.
            slot = -(-(time - origin + 1) * above // below) - 1
            if self._origin is None or slot < self._slot - 1:
                self._origin, self._slot = time, -(-above // below) - 1
                opened.append(True)
                continue
            opened.append(slot > self._slot)
            self._slot = max(slot, self._slot)
        return np.array(opened, dtype=bool)


def count_rows(config: SamplingConfig, pts_N: np.ndarray, time_base: Fraction) -> int:
    """Number of rows of a video whose frames are shown at ``pts_N``."""
    return len(Sampler(config, len(pts_N)).pick(pts_N, time_base))
