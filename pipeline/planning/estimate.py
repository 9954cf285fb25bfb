"""From a few videos looked at to a whole corpus. Pure arithmetic."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from distinit.pipeline.cache.encoding import array_specs
from distinit.schemas.teacher import parse_encoding

__all__ = ["Speed", "TargetWidth", "Total", "estimate_hours", "estimate_total", "logit_bytes"]


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over the whole corpus; in 19 of 20 samples the truth lies within low .. high."""

    expected: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class TargetWidth:
    """What decides the size of a teacher's row."""

    classes: int
    has_classes: bool = True  # features have none to pick the top ones of


@dataclass(frozen=True, slots=True)
class Speed:
    """What one worker does alone. ``rows_per_second``: of each teacher.

    ``overlap``: the teachers run on a device of their own while the CPU decodes.
    """

    frames_per_second: float
    rows_per_second: tuple[float, ...]
    overlap: bool


def estimate_total(sampled: Sequence[int], videos: int) -> Total:
    """The sum over ``videos`` videos of what ``sampled`` says of some of them.

    The mean times the number; the interval is two standard errors of a sample without
    replacement, so that a sample of all videos has none.

    Raises ValueError for an empty sample, or one larger than the corpus.
    """
    if not 0 < len(sampled) <= videos:
        raise ValueError(f"a sample of {len(sampled)} from {videos} videos")
    expected = statistics.fmean(sampled) * videos
    # One video says nothing about how videos differ: take it to be as much as its own value.
    deviation = statistics.stdev(sampled) if len(sampled) > 1 else float(sampled[0])
    unseen = 1 - len(sampled) / videos
    margin = 2 * videos * deviation * math.sqrt(unseen / len(sampled))
    least = sum(sampled)  # these are there for certain
    low = max(expected - margin, least)
    return Total(round(expected), round(low), round(expected + margin))


def logit_bytes(
    rows: int, teachers: Iterable[TargetWidth], encodings: Iterable[str]
) -> Mapping[str, int]:
    """Bytes of all teachers' stored logits by encoding, without those that some cannot have."""
    teachers = list(teachers)
    found: dict[str, int] = {}
    for encoding in encodings:
        kind, k = parse_encoding(encoding)
        possible = kind != "topk" or all(t.has_classes and k < t.classes for t in teachers)
        if possible:
            row_bytes = sum(
                spec.row_bytes for t in teachers for spec in array_specs(encoding, t.classes)
            )
            found[encoding] = rows * row_bytes
    return found


def estimate_hours(
    frames: int, rows: int, speed: Speed, workers: Iterable[int]
) -> Mapping[int, float]:
    """Hours by number of workers, each of which has to itself what ``speed`` was measured with."""
    decoding_seconds = frames / speed.frames_per_second
    teaching_seconds = sum(rows / rate for rate in speed.rows_per_second)
    together = (decoding_seconds, teaching_seconds)
    seconds = max(together) if speed.overlap else sum(together)
    return {count: seconds / count / 3600 for count in workers}
