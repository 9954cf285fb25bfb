"""Frames by class and bin of entropy in few bytes, for the table of classes of the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.bins import COARSE_BINS
from distinit.pipeline.audit.scan import ConfidenceScan

__all__ = ["ClassBins", "class_bins"]


@dataclass(frozen=True, slots=True)
class ClassBins:
    """For each class, the bins that have frames: entries ``first_C[c] .. first_C[c + 1]``."""

    merged: int
    """Bins of the scan per bin of this table; a threshold inside of one is rounded down."""
    first_C: NDArray[np.uint32]
    """[classes + 1]"""
    bin_K: NDArray[np.uint16]
    frames_K: NDArray[np.uint32]


def class_bins(scan: ConfidenceScan, most_entries: int) -> ClassBins:
    """The table with at most ``most_entries`` entries; bins are merged until they fit.

    There are at least COARSE_BINS bins, so a teacher with very many classes may exceed the limit.
    """
    joint_CB = scan.joint_CB
    classes, bins = joint_CB.shape
    for merged in (m for m in range(1, bins // COARSE_BINS + 1) if bins % m == 0):
        counts_CB = joint_CB if merged == 1 else _merged(joint_CB, merged)
        if np.count_nonzero(counts_CB) <= most_entries:
            break
    class_K, bin_K = np.nonzero(counts_CB)
    first_C = np.searchsorted(class_K, np.arange(classes + 1)).astype(np.uint32)
    return ClassBins(merged, first_C, bin_K.astype(np.uint16), counts_CB[class_K, bin_K])


def _merged(joint_CB: NDArray[np.uint32], merged: int) -> NDArray[np.uint32]:
    classes = len(joint_CB)
    merged_CB: NDArray[np.uint32] = joint_CB.reshape(classes, -1, merged).sum(
        axis=2, dtype=np.uint32
    )
    return merged_CB
