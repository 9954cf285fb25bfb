"""Compares the statistics of feature teachers with the stored rows."""

from __future__ import annotations

import numpy as np

from distinit.pipeline.cache.feature_moments import FeatureMoments
from distinit.pipeline.cache.feature_statistics import statistics_command
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.moments_file import (
    MomentsError,
    StoredMoments,
    content_of_units,
    read_moments,
)
from distinit.pipeline.cache.state import CacheState
from distinit.pipeline.cache.whole_check import listed_names

__all__ = ["check_statistics", "first_difference", "listed_statistics", "measured_teachers"]

RELATIVE_TOLERANCE = 1e-9
"""Of a standard deviation (means), and of the product of two (covariances). Another machine may
add in another order; how much that changes is measured in decision 55."""
_ROUNDING = 1e-4
"""Share of the mean that is added to the standard deviation: a large mean is rounded more."""


def listed_statistics(layout: CacheLayout, state: CacheState) -> set[str]:
    """The files of statistics that the list of checksums has."""
    names = {
        layout.relative(layout.statistics(name))
        for name, record in state.records.items()
        if record.identity.target == "features"
    }
    return names & listed_names(layout) if names else set()


def measured_teachers(layout: CacheLayout, state: CacheState) -> frozenset[str]:
    """The feature teachers that have statistics, with which their rows can be compared."""
    return frozenset(
        name
        for name, record in state.records.items()
        if record.identity.target == "features" and layout.statistics(name).is_file()
    )


def check_statistics(
    layout: CacheLayout, state: CacheState, name: str, recomputed: FeatureMoments | None
) -> tuple[list[str], list[str]]:
    """Problems and notes about the statistics of a teacher.

    ``recomputed``: of all its rows; None: it is not among the ``measured_teachers``.
    """
    record, path = state.records[name], layout.statistics(name)
    if record.identity.target != "features":
        return [], []
    file, command = layout.relative(path), f"run `{statistics_command(layout)}`"
    if recomputed is None:
        if file in listed_statistics(layout, state):
            return [], []  # already reported as missing
        return [], [f"teacher {name} has no statistics; {command}, which adds them"]
    try:
        stored = read_moments(path, record.identity.channels)
    except MomentsError as error:
        return [f"{file}: {error}; {command}"], []
    digests = [commit.content_sha256 for _, commit in sorted(state.commits[name].items())]
    right = StoredMoments(recomputed, len(digests), content_of_units(digests))
    difference = first_difference(stored, right)
    return [f"{file}: {difference}; {command}"] if difference else [], []


def first_difference(stored: StoredMoments, recomputed: StoredMoments) -> str:
    """The first value that differs by more than rounding can explain; empty: none does."""
    if (stored.units, stored.content) != (recomputed.units, recomputed.content):
        return "belongs to other rows"
    mine, right = stored.moments, recomputed.moments
    if mine.vectors != right.vectors:
        return f"{mine.vectors} vectors, recomputed {right.vectors}"
    if not right.vectors:
        return ""
    diagonal_C = right.scatter.diagonal() if right.scatter.ndim == 2 else right.scatter
    scale_C = np.sqrt(diagonal_C / right.vectors) + _ROUNDING * np.abs(right.mean_C)
    wrong_C = np.abs(mine.mean_C - right.mean_C) > RELATIVE_TOLERANCE * scale_C
    if wrong_C.any():
        at = int(wrong_C.argmax())
        return f"mean of channel {at} is {mine.mean_C[at]}, recomputed {right.mean_C[at]}"
    scale = np.outer(scale_C, scale_C) if right.scatter.ndim == 2 else np.square(scale_C)
    apart = np.abs(mine.scatter - right.scatter) > RELATIVE_TOLERANCE * right.vectors * scale
    if not apart.any():
        return ""
    where = np.unravel_index(int(apart.argmax()), apart.shape)
    values = [moments.scatter[where] / right.vectors for moments in (mine, right)]
    channels = " and ".join(str(int(index)) for index in where)
    return f"covariance of channels {channels} is {values[0]}, recomputed {values[1]}"
