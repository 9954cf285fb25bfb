"""Parts of a training set: a held-out part to choose settings on, and few videos per class."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["few_per_class", "held_out"]

_HELD_OUT = 5  # one video of five
_DIGITS = re.compile(r"([0-9]+)")


def held_out(paths: Sequence[str], label_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which training videos [N] are held out: of each class the last fifth in order of the paths.

    At least one video of a class with several ones, and none of a class with one. Neighbouring
    files often come from the same film: a random part would hold copies of what is trained on.
    Numbers in paths are ordered as numbers.
    """
    held_N = np.zeros(len(paths), np.bool_)
    for label in np.unique(label_N).tolist():
        members = sorted(
            np.flatnonzero(label_N == label).tolist(), key=lambda index: _key(paths[index])
        )
        if len(members) > 1:
            held_N[members[-max(1, len(members) // _HELD_OUT) :]] = True
    return held_N


def _key(path: str) -> list[tuple[int, str]]:
    """Splits a path so that ``9.avi`` comes before ``10.avi``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(path)]


def few_per_class(
    label_N: NDArray[np.int64], shots: int | None, draw: int, seed: int
) -> NDArray[np.int64]:
    """Ascending indices of ``shots`` videos of each class; all of a class that has fewer.

    None: all videos. The draws 0, 1, ... of one seed are disjoint as long as a class has enough
    videos: draw ``d`` has places ``d * shots`` and following of the class's shuffled videos, and
    starts again at the first place after the last one.
    """
    if shots is None:
        return np.arange(len(label_N))
    chosen = []
    for label in np.unique(label_N).tolist():
        members = np.flatnonzero(label_N == label)
        shuffled = members[np.random.default_rng([seed, label]).permutation(len(members))]
        places = (draw * shots + np.arange(min(shots, len(members)))) % len(members)
        chosen.append(shuffled[places])
    return np.sort(np.concatenate(chosen))
