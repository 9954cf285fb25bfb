"""Extrapolates from a sample of videos to the whole corpus. Pure arithmetic."""

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
    """An estimated sum over the whole corpus, with a 95 % confidence interval low .. high."""

    expected: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class TargetWidth:
    """Width of the targets of a teacher, which gives the size of a row."""

    classes: int
    has_classes: bool = True  # False for features, which topk cannot encode


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured speed of one worker; ``rows_per_second`` has one value per teacher.

    ``overlap``: the teachers run on a GPU while the CPU decodes.
    """

    frames_per_second: float
    rows_per_second: tuple[float, ...]
    overlap: bool


def estimate_total(sampled: Sequence[int], videos: int) -> Total:
    """Estimate the sum of a quantity over ``videos`` videos from its ``sampled`` values.

    This is the mean times the number of videos. The interval is two standard errors wide on each
    side, for sampling without replacement: it is empty if all videos are in the sample.

    Raises ValueError for an empty sample, or one larger than the corpus.
    """
    if not 0 < len(sampled) <= videos:
        raise ValueError(f"a sample of {len(sampled)} from {videos} videos")
    expected = statistics.fmean(sampled) * videos
    # One video gives no deviation: assume one as large as its value.
    deviation = statistics.stdev(sampled) if len(sampled) > 1 else float(sampled[0])
    unseen = 1 - len(sampled) / videos
    margin = 2 * videos * deviation * math.sqrt(unseen / len(sampled))
    least = sum(sampled)  # measured, not estimated
    low = max(expected - margin, least)
    return Total(round(expected), round(low), round(expected + margin))


def logit_bytes(
    rows: int, teachers: Iterable[TargetWidth], encodings: Iterable[str]
) -> Mapping[str, int]:
    """Encoding -> bytes of the stored targets of all teachers.

    Encodings that cannot store the targets of all teachers are left out.
    """
    teachers = list(teachers)
    sizes: dict[str, int] = {}
    for encoding in encodings:
        kind, k = parse_encoding(encoding)
        possible = kind != "topk" or all(t.has_classes and k < t.classes for t in teachers)
        if possible:
            row_bytes = sum(
                spec.row_bytes for t in teachers for spec in array_specs(encoding, t.classes)
            )
            sizes[encoding] = rows * row_bytes
    return sizes


def estimate_hours(
    frames: int, rows: int, speed: Speed, workers: Iterable[int]
) -> Mapping[int, float]:
    """Number of workers -> hours, if each worker has a machine like the measured one."""
    decoding_seconds = frames / speed.frames_per_second
    forward_seconds = sum(rows / rate for rate in speed.rows_per_second)
    parts = (decoding_seconds, forward_seconds)
    seconds = max(parts) if speed.overlap else sum(parts)
    return {count: seconds / count / 3600 for count in workers}
