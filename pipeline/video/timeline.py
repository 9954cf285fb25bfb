"""Estimates from presentation times how many frames of a video are missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distinit.pipeline.video.index import PacketTable

__all__ = ["Timeline", "timeline_of"]

_MIN_USUAL_SHARE = 0.8  # of the intervals; with fewer usual ones, a long one is not a gap
_TOLERANCE = 0.5  # an interval that differs by less than half from the usual one counts as usual
_MAX_MISSING_SHARE = 0.2  # of the frames; if more seem to be missing, the rate varies


@dataclass(frozen=True, slots=True)
class Timeline:
    """How evenly the packets of a video are spaced in time.

    ``even``: most intervals between packets are equal. ``frame_ticks``: the usual interval, in
    units of the time base; 0 if unknown. ``missing``: number of frames that would fill the gaps. A
    gap does not prove damage: intact files may pause, and recorders drop frames.
    """

    even: bool
    frame_ticks: float
    missing: int


def timeline_of(packets: PacketTable) -> Timeline:
    """The timeline of the packets that are shown. A packet's own duration is not a gap."""
    pts_N, duration_N = packets.times()
    order = np.argsort(pts_N, kind="stable")
    interval_N, duration_N = np.diff(pts_N[order]), duration_N[order]
    positive_N = interval_N[interval_N > 0]
    if len(positive_N) == 0:
        return Timeline(even=False, frame_ticks=0.0, missing=0)
    usual = float(np.median(positive_N))
    near_N = np.abs(interval_N - usual) <= _TOLERANCE * usual
    if near_N.mean() < _MIN_USUAL_SHARE:
        return Timeline(False, usual, _uneven(interval_N, duration_N))
    # The mean, not the median, because a clock of milliseconds rounds 33.3 to 33.
    frame = float(interval_N[near_N].mean())
    missing_N = np.rint((interval_N - np.maximum(duration_N[:-1], frame)) / frame)
    return Timeline(even=True, frame_ticks=frame, missing=int(missing_N.clip(min=0).sum()))


def _uneven(interval_N: np.ndarray, duration_N: np.ndarray) -> int:
    """Missing frames if packets share times, as in MPEG program streams, but all last equally."""
    duration = int(duration_N[0])
    if duration == 0 or (duration_N != duration).any():
        return 0
    missing = int(interval_N.sum()) // duration + 1 - len(duration_N)
    return missing if 0 < missing <= _MAX_MISSING_SHARE * len(duration_N) else 0
