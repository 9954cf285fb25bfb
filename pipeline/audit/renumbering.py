"""Whether the classes of two teachers agree better if those of one are renumbered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RenumberedAgreement", "RenumberingScan"]

Ints = NDArray[np.int64]

_FEWEST_CLASSES = 5  # that the other half of the videos must confirm


@dataclass(frozen=True, slots=True)
class RenumberedAgreement:
    """Shares of the same pairs of classes, each counted once per video."""

    without: float
    """Share with the same class, as the classes are numbered."""
    renumbered: float
    """Share with the same class after renumbering."""


class RenumberingScan:
    """Learns a renumbering from every second video, and judges it on the others, and vice versa.

    A pair of classes counts once per video (and unit): the frames of one video are alike.
    """

    def __init__(self, classes: int) -> None:
        self._videos_2CC = np.zeros((2, classes, classes), np.uint32)

    def add(self, video_N: Ints, first_N: NDArray[np.int32], second_N: NDArray[np.int32]) -> None:
        """Count the most probable classes of the frames of one unit, in the order of its videos."""
        cells = self._videos_2CC[0].size
        if not cells:
            return
        key_N = (video_N * len(self._videos_2CC[0]) + first_N) * len(self._videos_2CC[0]) + second_N
        changes_N = np.append(True, np.diff(key_N) != 0)  # fewer to sort
        video_M, cell_M = np.divmod(np.unique(key_N[changes_N]), cells)
        place_M = (video_M % 2) * cells + cell_M
        np.add.at(self._videos_2CC.reshape(-1), place_M, np.uint32(1))

    def agreement(self) -> RenumberedAgreement | None:
        """Over the pairs with a class that is renumbered; None: the other videos confirm the new
        numbers of fewer than 5 classes.
        """
        pairs = same = renumbered = 0
        confirmed: set[int] = set()
        for learnt_CC, judged_CC in (self._videos_2CC, self._videos_2CC[::-1]):
            from_K, to_K = _renumbering(learnt_CC)
            rows_KC, columns_CK = judged_CC[from_K], judged_CC[:, to_K]
            hit_K = judged_CC[from_K, to_K]
            pairs += (
                int(rows_KC.sum()) + int(columns_CK.sum()) - int(judged_CC[from_K][:, to_K].sum())
            )
            same += int(judged_CC.diagonal()[np.union1d(from_K, to_K)].sum())
            renumbered += int(hit_K.sum())
            confirmed.update(from_K[hit_K > 0].tolist())
        if len(confirmed) < _FEWEST_CLASSES:
            return None
        return RenumberedAgreement(same / pairs, renumbered / pairs)


def _renumbering(videos_CC: NDArray[np.uint32]) -> tuple[Ints, Ints]:
    """Classes [K] of the first and of the second teacher that occur together most often."""
    if not videos_CC.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    to_C, back_C = videos_CC.argmax(axis=1), videos_CC.argmax(axis=0)
    class_C = np.arange(len(videos_CC))
    (from_K,) = np.nonzero((back_C[to_C] == class_C) & (videos_CC[class_C, to_C] > 0))
    return from_K, to_C[from_K]
