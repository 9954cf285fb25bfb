"""The rows of a unit by video: rows of one video follow each other, in the order of its frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.units import ConfidenceRows

__all__ = ["ExtremeFrame", "VideoExtremes", "VideoRuns"]

Ints = NDArray[np.int64]

_EXTREME = np.dtype(
    [
        ("score", "f4"),
        ("frame_index", "i8"),
        ("entropy", "f4"),
        ("top1_class", "i4"),
        ("top1_probability", "f4"),
    ]
)


@dataclass(frozen=True, slots=True)
class VideoRuns:
    """R runs of rows of the same video."""

    video_R: Ints
    first_R: Ints
    length_R: Ints

    @classmethod
    def of(cls, video_N: Ints) -> VideoRuns:
        """The runs of a unit; it has at least one row."""
        first_R = np.concatenate([[0], np.flatnonzero(np.diff(video_N)) + 1])
        length_R = np.diff(np.append(first_R, len(video_N)))
        return cls(video_N[first_R], first_R, length_R)

    def sums(self, values_N: NDArray[np.floating]) -> NDArray[np.float64]:
        """The sum over each run, in fp64: [R]."""
        sums_R: NDArray[np.float64] = np.add.reduceat(values_N.astype(np.float64), self.first_R)
        return sums_R

    def first_lowest(self, score_N: NDArray[np.floating]) -> Ints:
        """The place of the first row with the lowest score of each run: [R]."""
        low_R = np.minimum.reduceat(score_N, self.first_R)
        place_M = np.flatnonzero(score_N == np.repeat(low_R, self.length_R))
        return place_M[np.searchsorted(place_M, self.first_R)]

    def pairs(self) -> NDArray[np.bool_]:
        """bool [N - 1]: whether a row and the next one are of the same video."""
        same_N = np.ones(int(self.length_R.sum()), np.bool_)
        same_N[self.first_R] = False
        return same_N[1:]


@dataclass(frozen=True, slots=True)
class ExtremeFrame:
    """The chosen frame of one video."""

    video: int
    """Position of the video in videos.parquet."""
    frame_index: int
    entropy_nats: float
    top1_class: int
    top1_probability: float


class VideoExtremes:
    """Keeps the row with the lowest score of each video; of equal ones, the first."""

    def __init__(self, videos: int) -> None:
        self._best_V = np.full(videos, np.array((np.inf, -1, np.nan, -1, 0), _EXTREME))

    def add(
        self,
        runs: VideoRuns,
        score_N: NDArray[np.floating],
        rows: ConfidenceRows,
    ) -> None:
        """Take the rows of one unit into account."""
        place_R = runs.first_lowest(score_N)
        found_R = np.empty(len(place_R), _EXTREME)
        found_R["score"] = score_N[place_R]
        found_R["frame_index"] = rows.frame_index_N[place_R]
        found_R["entropy"] = rows.entropy_nats_N[place_R]
        found_R["top1_class"] = rows.top1_class_N[place_R]
        found_R["top1_probability"] = rows.top1_probability_N[place_R]
        order = np.lexsort((found_R["score"], runs.video_R))  # stable
        video_K, first_K = np.unique(runs.video_R[order], return_index=True)
        found_K = found_R[order[first_K]]
        better_K = found_K["score"] < self._best_V["score"][video_K]
        self._best_V[video_K[better_K]] = found_K[better_K]

    def scores(self) -> NDArray[np.float32]:
        """The lowest score of each video, [V]; infinite for one without rows."""
        score_V: NDArray[np.float32] = self._best_V["score"]
        return score_V

    def entropies_nats(self) -> NDArray[np.float32]:
        """The entropy of the chosen frame of each video, [V]; NaN for one without rows."""
        entropy_V: NDArray[np.float32] = self._best_V["entropy"]
        return entropy_V

    def of(self, video: int) -> ExtremeFrame:
        """The chosen frame of a video that has rows."""
        found = self._best_V[video]
        return ExtremeFrame(
            video,
            int(found["frame_index"]),
            float(found["entropy"]),
            int(found["top1_class"]),
            float(found["top1_probability"]),
        )

    def lowest(self, count: int) -> list[ExtremeFrame]:
        """The chosen frames of ``count`` videos with the lowest scores, ascending."""
        (videos,) = np.nonzero(np.isfinite(self.scores()))
        order = np.lexsort((videos, self.scores()[videos]))[:count]
        return [self.of(int(video)) for video in videos[order]]
