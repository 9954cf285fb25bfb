"""The statistics of one teacher, from one streaming pass: memory grows with videos, not frames."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.bins import EntropyBins
from distinit.pipeline.audit.runs import ExtremeFrame, VideoExtremes, VideoRuns
from distinit.pipeline.audit.units import ConfidenceRows
from distinit.schemas.errors import CacheCorruptError

__all__ = ["ConfidenceScan"]

MIN_THRESHOLDS = 8
_GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)


class ConfidenceScan:
    """Accumulates the statistics of one teacher over its units."""

    def __init__(self, videos: int, classes: int) -> None:
        self.bins = EntropyBins.of(classes)
        self.highest_nats = math.log(classes) if classes > 1 else 1.0
        self.joint_CB = np.zeros((classes, self.bins.count), np.uint32)
        """Frames by most probable class and bin of entropy."""
        self.video_frames = np.zeros(videos, np.int64)
        self.video_entropy_sum_nats = np.zeros(videos, np.float64)
        self.video_square_sum = np.zeros(videos, np.float64)
        self.class_entropy_sum_nats = np.zeros(classes, np.float64)
        self.frames = 0
        self.probability_sum = 0.0
        self.same_pictures = 0
        self.same_pictures_other_class = 0
        self.most_confident = VideoExtremes(videos)
        self.least_confident = VideoExtremes(videos)
        self.any_frame = VideoExtremes(videos)
        """One frame of each video, chosen without regard to its entropy."""

    def add(self, rows: ConfidenceRows) -> None:
        """Count the rows of one unit. Raises CacheCorruptError for impossible values."""
        self._check(rows)
        if not len(rows.video_N):
            return
        entropy_nats_N = rows.entropy_nats_N.astype(np.float64)
        place_N = rows.top1_class_N.astype(np.int64) * self.bins.count
        place_N += self.bins.bins_of(rows.entropy_nats_N)
        np.add.at(self.joint_CB.reshape(-1), place_N, np.uint32(1))
        self.class_entropy_sum_nats += np.bincount(
            rows.top1_class_N, entropy_nats_N, len(self.class_entropy_sum_nats)
        )
        self.frames += len(entropy_nats_N)
        self.probability_sum += float(rows.top1_probability_N.sum(dtype=np.float64))
        self._add_videos(rows, VideoRuns.of(rows.video_N), entropy_nats_N)

    def add_same_pictures(self, rows: ConfidenceRows, same_N: NDArray[np.bool_]) -> None:
        """Compare neighbours that show the same picture; ``same_N``: of each row but the first.

        Only pairs whose first frame has a class with a majority count: where the teacher is not
        sure, small differences decide which class is the most probable one.
        """
        other_N = rows.top1_class_N[1:] != rows.top1_class_N[:-1]
        same_N = same_N & (rows.top1_probability_N[:-1] > 0.5)
        self.same_pictures += int(same_N.sum())
        self.same_pictures_other_class += int((same_N & other_N).sum())

    def _add_videos(
        self, rows: ConfidenceRows, runs: VideoRuns, entropy_nats_N: NDArray[np.float64]
    ) -> None:
        np.add.at(self.video_frames, runs.video_R, runs.length_R)
        np.add.at(self.video_entropy_sum_nats, runs.video_R, runs.sums(entropy_nats_N))
        np.add.at(self.video_square_sum, runs.video_R, runs.sums(entropy_nats_N**2))
        entropy_N = rows.entropy_nats_N
        number_N = (rows.video_N.astype(np.uint64) << np.uint64(24)) + np.uint64(1)
        scattered_N = (number_N + rows.frame_index_N.astype(np.uint64)) * _GOLDEN
        for extremes, score_N in (
            (self.most_confident, entropy_N),
            (self.least_confident, -entropy_N),
            (self.any_frame, (scattered_N >> np.uint64(41)).astype(np.float32)),
        ):
            extremes.add(runs, score_N, rows)

    def _check(self, rows: ConfidenceRows) -> None:
        # Rounding may lift the entropy of a uniform distribution a little above ln(classes).
        low, high = 0.0, self.highest_nats + 1e-3
        for name, values, smallest, largest in (
            ("entropy_nats", rows.entropy_nats_N, low, high),
            ("top1_class", rows.top1_class_N, 0, len(self.joint_CB) - 1),
            ("top1_probability", rows.top1_probability_N, 0.0, 1.001),
        ):
            if not ((values >= smallest) & (values <= largest)).all():
                raise CacheCorruptError(
                    f"a confidence table contains impossible values of {name}",
                    expected=f"{smallest} .. {largest:.6g}",
                    found=f"{values.min()} .. {values.max()}",
                    remedy="run `distinit cache verify` and extract the damaged units again",
                )

    @property
    def class_frames(self) -> NDArray[np.int64]:
        """Frames of which each class is the most probable one: [C]."""
        frames_C: NDArray[np.int64] = self.joint_CB.sum(axis=1, dtype=np.int64)
        return frames_C

    @property
    def bin_frames(self) -> NDArray[np.int64]:
        """Frames per bin of entropy: [B]."""
        frames_B: NDArray[np.int64] = self.joint_CB.sum(axis=0, dtype=np.int64)
        return frames_B

    @property
    def thresholds_nats(self) -> NDArray[np.float64]:
        """Evenly spaced thresholds for a table; each is an edge of the bins."""
        step = 0.5
        while self.highest_nats / step < MIN_THRESHOLDS:
            step /= 2
        count = math.ceil(self.highest_nats / step)
        thresholds_nats: NDArray[np.float64] = np.arange(1, count + 1, dtype=np.float64)
        return thresholds_nats * step

    @property
    def kept_frames(self) -> NDArray[np.int64]:
        """Frames that each of ``thresholds_nats`` keeps."""
        kept_B = np.concatenate([[0], np.cumsum(self.bin_frames)])
        place = np.minimum(self.thresholds_nats / self.bins.step_nats, self.bins.count)
        kept: NDArray[np.int64] = kept_B[place.astype(np.int64)]
        return kept

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """(edges in nats [COARSE_BINS + 1], frames per coarse bin [COARSE_BINS])."""
        return self.bins.coarse_edges_nats(), self.bins.coarse(self.bin_frames)

    def mean_video_nats(self) -> tuple[np.ndarray, np.ndarray]:
        """(videos with rows, their mean entropies in nats), by entropy, then by position."""
        (videos,) = np.nonzero(self.video_frames)
        means = self.video_entropy_sum_nats[videos] / self.video_frames[videos]
        order = np.lexsort((videos, means))
        return videos[order], means[order]

    def video_spread_nats(self) -> NDArray[np.float64]:
        """Standard deviation of the entropies of each video: [V]; 0 for one without rows."""
        frames_V = np.maximum(self.video_frames, 1)
        mean_V = self.video_entropy_sum_nats / frames_V
        spread_V: NDArray[np.float64] = np.sqrt(
            np.maximum(self.video_square_sum / frames_V - mean_V**2, 0)
        )
        return spread_V

    def extremes(self, count: int, *, most_confident: bool) -> list[ExtremeFrame]:
        """The most (or least) confident frame of each video; the first ``count`` of these.

        Of few videos it is those of half of them (rounded up), so that the two lists differ.
        Sorted by entropy, ascending (or descending), then by the position of the video.
        """
        best = self.most_confident if most_confident else self.least_confident
        return best.lowest(min(count, (int(np.count_nonzero(self.video_frames)) + 1) // 2))
