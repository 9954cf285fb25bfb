"""Confidence intervals of accuracies over a finite number of test videos."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["difference_interval", "paired_interval", "wilson_interval"]

_Z_95 = 1.959963984540054  # two-sided 95 % of a normal distribution


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the proportion ``correct / total``, both ends in 0..1.

    Unlike the normal approximation it stays within 0..1, also for proportions near the ends.
    """
    p, z2 = correct / total, _Z_95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z_95 * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def difference_interval(
    correct: int, total: int, base_correct: int, base_total: int
) -> tuple[float, float]:
    """95 % interval of ``correct / total - base_correct / base_total`` (Newcombe 1998, method 10).

    It treats the two sets of test videos as independent. If they are the same videos, the true
    interval is usually narrower.
    """
    p, base = correct / total, base_correct / base_total
    low, high = wilson_interval(correct, total)
    base_low, base_high = wilson_interval(base_correct, base_total)
    difference = p - base
    return (
        difference - math.hypot(p - low, base_high - base),
        difference + math.hypot(high - p, base - base_low),
    )


def paired_interval(difference_V: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean of differences per test video: [V], at least two.

    A difference is the share of correct runs of one group less that of the other, for one video.
    Normal approximation, mean +- 1.96 standard errors: for tens of videos and more. Runs are taken
    as they are: it says how much other test videos could change the difference, not other seeds.
    """
    mean = float(difference_V.mean())
    half = _Z_95 * float(difference_V.std(ddof=1)) / math.sqrt(len(difference_V))
    return mean - half, mean + half
