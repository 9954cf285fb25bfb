"""Bins of entropy whose edges are exact in fp32, so that counts up to an edge are exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["COARSE_BINS", "EntropyBins"]

COARSE_BINS = 64
_LEAST_BINS = 1024


@dataclass(frozen=True, slots=True)
class EntropyBins:
    """Bin i holds entropies above ``i * step_nats``, up to and including ``(i + 1) * step_nats``.

    Entropy 0 is in bin 0. The step is a power of two: comparing an fp32 entropy with an edge is
    exact, as in the confidence filter of distillation.
    """

    step_nats: float
    count: int
    """A multiple of COARSE_BINS, at least 1,024."""
    highest_nats: float
    """ln(classes)"""

    @classmethod
    def of(cls, classes: int) -> EntropyBins:
        """Bins from 0 to at least ln(classes)."""
        highest_nats = math.log(max(classes, 2))
        step_nats = 2.0 ** math.floor(math.log2(highest_nats / _LEAST_BINS))
        coarse = math.ceil(highest_nats / step_nats / COARSE_BINS)
        return cls(step_nats, coarse * COARSE_BINS, highest_nats)

    @property
    def edges_nats(self) -> NDArray[np.float64]:
        """[count + 1]"""
        edges_nats: NDArray[np.float64] = np.arange(self.count + 1, dtype=np.float64)
        return edges_nats * self.step_nats

    @property
    def merged(self) -> int:
        """Bins per coarse bin."""
        return self.count // COARSE_BINS

    def bins_of(self, entropy_nats_N: NDArray[np.floating]) -> NDArray[np.int64]:
        """The bin of each entropy. Rounding may lift one above ln(classes): the last bin."""
        place_N = np.ceil(entropy_nats_N.astype(np.float32) * np.float32(1 / self.step_nats))
        bins_N: NDArray[np.int64] = np.clip(place_N.astype(np.int64) - 1, 0, self.count - 1)
        return bins_N

    def coarse(self, counts_B: NDArray[np.integer]) -> NDArray[np.int64]:
        """Counts per coarse bin: [COARSE_BINS]."""
        counts_K: NDArray[np.int64] = counts_B.reshape(COARSE_BINS, self.merged).sum(
            axis=1, dtype=np.int64
        )
        return counts_K

    def coarse_edges_nats(self) -> NDArray[np.float64]:
        """[COARSE_BINS + 1]"""
        return self.edges_nats[:: self.merged]

    def bin_at(self, threshold_nats: float) -> int:
        """The last bin that is wholly at or below a threshold; -1 if none is."""
        return min(self.count, math.floor(threshold_nats / self.step_nats)) - 1
