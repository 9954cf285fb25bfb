"""Compares the statistics of feature teachers with the stored rows."""

from __future__ import annotations

import numpy as np

from distinit.pipeline.cache.feature_moments import FeatureMoments, merged
from distinit.pipeline.cache.feature_statistics import statistics_command
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.moments_file import (
    MomentsError,
    StoredMoments,
    content_of_units,
    read_moments,
)
from distinit.pipeline.cache.state import CacheState
from distinit.pipeline.cache.statistics_update import unit_moments
from distinit.pipeline.cache.whole_check import listed_names
from distinit.pipeline.progress import Progress

__all__ = ["check_statistics", "first_difference", "listed_statistics"]

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


def check_statistics(
    layout: CacheLayout, state: CacheState, name: str, progress: Progress
) -> tuple[list[str], list[str]]:
    """Problems and notes about the statistics of a teacher, computed again from its rows.

    Raises CacheCorruptError for rows that cannot be read.
    """
    record, path = state.records[name], layout.statistics(name)
    if record.identity.target != "features":
        return [], []
    file, command = layout.relative(path), f"run `{statistics_command(layout)}`"
    if not path.is_file():
        if file in listed_statistics(layout, state):
            return [], []  # already reported as missing
        return [], [f"teacher {name} has no statistics; {command}, which adds them"]
    try:
        stored = read_moments(path, record.identity.channels)
    except MomentsError as error:
        return [f"{file}: {error}; {command}"], []
    difference = first_difference(stored, _recomputed(layout, state, name, progress))
    return [f"{file}: {difference}; {command}"] if difference else [], []


def _recomputed(
    layout: CacheLayout, state: CacheState, name: str, progress: Progress
) -> StoredMoments:
    record, commits = state.records[name], state.commits[name]
    total = FeatureMoments.empty(record.identity.channels)
    progress.start(f"statistics of {name}", len(commits), "units")
    for _, commit in sorted(commits.items()):
        total = merged(total, unit_moments(layout, record, commit, state.plan.capacity))
        progress.advance()
    progress.finish()
    digests = [commits[unit].content_sha256 for unit in sorted(commits)]
    return StoredMoments(total, len(digests), content_of_units(digests))


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
