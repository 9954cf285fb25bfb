"""Which decoded frames of a video become rows: by number, by count or by presentation time."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from distinit.schemas.video import SamplingConfig

__all__ = ["Sampler", "count_rows"]


class Sampler:
    """Picks the rows of one video from its blocks, which come in order.

    What is picked does not depend on where blocks are cut. Mode ``per_video`` needs to know how
    many frames the video has; ``frames`` is what the probe announced, or what was counted.
    """

    def __init__(self, config: SamplingConfig, frames: int) -> None:
        self._config = config
        self._next = 0
        by_time = config.mode == "fps" and config.fps is not None
        self._slots = _Slots(Fraction(str(config.fps))) if by_time else None
        wanted = np.arange(min(config.per_video or 0, frames), dtype=np.int64)
        # The middles of equal parts, in integers: no rounding to differ between machines.
        self._middles = (2 * wanted + 1) * frames // (2 * max(len(wanted), 1))

    def pick(self, pts_N: np.ndarray, time_base: Fraction) -> np.ndarray:
        """Indices (int64, ascending, 0-based in the video) of the next frames that become rows.

        Args:
            pts_N: Presentation times of the next frames, in display order.
            time_base: Seconds of one unit of ``pts_N``.
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
    """Slots of 1/fps seconds from the first frame on; a frame that opens a new one is picked.

    A slot starts where the container's clock last ticked before its exact start: a clock of
    milliseconds shows the frames of 30 a second at 0, 33, 67, 100. Where the times run back by
    more than a slot, as in recordings that were joined, the slots start over from there.
    """

    def __init__(self, fps: Fraction) -> None:
        self._fps = fps
        self._origin: int | None = None
        self._slot = 0

    def opened_by(self, pts: Iterable[int], time_base: Fraction) -> np.ndarray:
        """bool [N]: which of the next frames open a slot. All in integers."""
        slots_a_tick = self._fps * time_base
        above, below = slots_a_tick.numerator, slots_a_tick.denominator
        opened = []
        for time in pts:
            origin = time if self._origin is None else self._origin
            # The largest k with floor(k / slots_a_tick) <= time - origin.
            slot = -(-(time - origin + 1) * above // below) - 1
            if self._origin is None or slot < self._slot - 1:
                self._origin, self._slot = time, -(-above // below) - 1
                opened.append(True)
                continue
            opened.append(slot > self._slot)
            self._slot = max(slot, self._slot)
        return np.array(opened, dtype=bool)


def count_rows(config: SamplingConfig, pts_N: np.ndarray, time_base: Fraction) -> int:
    """How many rows a video has whose frames are shown at ``pts_N``."""
    return len(Sampler(config, len(pts_N)).pick(pts_N, time_base))
