"""One streaming pass over a teacher's confidence tables: memory grows with videos, not frames."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.state import committed_units
from distinit.pipeline.cache.tables import column
from distinit.pipeline.cache.unit_tables import answered_rows, read_confidence, read_frames
from distinit.schemas.errors import CacheCorruptError

__all__ = ["HISTOGRAM_BINS", "ConfidenceRows", "ConfidenceScan", "ExtremeFrame", "read_units"]

HISTOGRAM_BINS = 64
MIN_THRESHOLDS = 8

_EXTREME = np.dtype(
    [("entropy", "f4"), ("frame_index", "i8"), ("top1_class", "i4"), ("top1_probability", "f4")]
)


@dataclass(frozen=True, slots=True)
class ConfidenceRows:
    """The rows of one unit that the audit counts."""

    video_N: np.ndarray
    """Position of the video in videos.parquet."""
    frame_index_N: np.ndarray
    entropy_nats_N: np.ndarray
    top1_class_N: np.ndarray
    top1_probability_N: np.ndarray


@dataclass(frozen=True, slots=True)
class ExtremeFrame:
    """The most or least confident frame of one video."""

    video: int
    """Position of the video in videos.parquet."""
    frame_index: int
    entropy_nats: float
    top1_class: int
    top1_probability: float


class ConfidenceScan:
    """Accumulates the statistics of one teacher over its units."""

    def __init__(self, videos: int, classes: int) -> None:
        self.highest_nats = math.log(classes) if classes > 1 else 1.0
        self.thresholds_nats = _threshold_grid(self.highest_nats)
        self.kept_frames = np.zeros(len(self.thresholds_nats), np.int64)
        self.histogram_frames = np.zeros(HISTOGRAM_BINS, np.int64)
        self.class_frames = np.zeros(classes, np.int64)
        self.video_frames = np.zeros(videos, np.int64)
        self.video_entropy_sum_nats = np.zeros(videos, np.float64)
        self.frames = 0
        self.probability_sum = 0.0
        self._most_confident = np.full(videos, np.array((np.inf, -1, -1, 0), _EXTREME))
        self._least_confident = np.full(videos, np.array((-np.inf, -1, -1, 0), _EXTREME))

    def add(self, rows: ConfidenceRows) -> None:
        """Count the rows of one unit. Raises CacheCorruptError for impossible values."""
        self._check(rows)
        entropy_nats_N = rows.entropy_nats_N.astype(np.float64)
        bin_N = (entropy_nats_N / self.highest_nats * HISTOGRAM_BINS).astype(np.int64)
        self.histogram_frames += np.bincount(
            np.minimum(bin_N, HISTOGRAM_BINS - 1), minlength=HISTOGRAM_BINS
        )
        self.kept_frames += np.searchsorted(
            np.sort(entropy_nats_N), self.thresholds_nats, side="right"
        )
        classes = len(self.class_frames)
        self.class_frames += np.bincount(rows.top1_class_N, minlength=classes)
        np.add.at(self.video_frames, rows.video_N, 1)
        np.add.at(self.video_entropy_sum_nats, rows.video_N, entropy_nats_N)
        self.frames += len(entropy_nats_N)
        self.probability_sum += float(rows.top1_probability_N.astype(np.float64).sum())
        self._keep_extremes(rows)

    def _check(self, rows: ConfidenceRows) -> None:
        # Rounding may lift the entropy of a uniform distribution a little above ln(classes).
        low, high = 0.0, self.highest_nats + 1e-3
        for name, values, smallest, largest in (
            ("entropy_nats", rows.entropy_nats_N, low, high),
            ("top1_class", rows.top1_class_N, 0, len(self.class_frames) - 1),
            ("top1_probability", rows.top1_probability_N, 0.0, 1.001),
        ):
            if not ((values >= smallest) & (values <= largest)).all():
                raise CacheCorruptError(
                    f"a confidence table contains impossible values of {name}",
                    expected=f"{smallest} .. {largest:.6g}",
                    found=f"{values.min()} .. {values.max()}",
                    remedy="run `distinit cache verify` and extract the damaged units again",
                )

    def _keep_extremes(self, rows: ConfidenceRows) -> None:
        """Keep the first frame of lowest and of highest entropy of each video."""
        table = np.empty(len(rows.video_N), _EXTREME)
        table["entropy"], table["frame_index"] = rows.entropy_nats_N, rows.frame_index_N
        table["top1_class"] = rows.top1_class_N
        table["top1_probability"] = rows.top1_probability_N
        for best, sign in ((self._most_confident, 1), (self._least_confident, -1)):
            order = np.lexsort((rows.frame_index_N, sign * rows.entropy_nats_N, rows.video_N))
            videos, first = np.unique(rows.video_N[order], return_index=True)
            found = table[order[first]]
            better = sign * found["entropy"] < sign * best["entropy"][videos]
            best[videos[better]] = found[better]

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """(edges in nats [HISTOGRAM_BINS + 1], frames per bin [HISTOGRAM_BINS])."""
        return np.linspace(0, self.highest_nats, HISTOGRAM_BINS + 1), self.histogram_frames

    def mean_video_nats(self) -> tuple[np.ndarray, np.ndarray]:
        """(videos with rows, their mean entropies in nats), by entropy, then by position."""
        (videos,) = np.nonzero(self.video_frames)
        means = self.video_entropy_sum_nats[videos] / self.video_frames[videos]
        order = np.lexsort((videos, means))
        return videos[order], means[order]

    def extremes(self, count: int, *, most_confident: bool) -> list[ExtremeFrame]:
        """The most (or least) confident frame of each video; the first ``count`` of these.

        Of few videos it is those of half of them (rounded up), so that the two lists differ.
        Sorted by entropy, ascending (or descending), then by the position of the video.
        """
        best = self._most_confident if most_confident else self._least_confident
        (videos,) = np.nonzero(self.video_frames)
        count = min(count, (len(videos) + 1) // 2)
        entropy = best["entropy"][videos]
        chosen = videos[np.lexsort((videos, entropy if most_confident else -entropy))[:count]]
        return [_extreme(int(video), best[video]) for video in chosen]


def _extreme(video: int, found: np.void) -> ExtremeFrame:
    return ExtremeFrame(
        video,
        int(found["frame_index"]),
        float(found["entropy"]),
        int(found["top1_class"]),
        float(found["top1_probability"]),
    )


def _threshold_grid(highest_nats: float) -> np.ndarray:
    """Multiples of a power of two, so that comparing with fp32 entropies is exact."""
    step = 0.5
    while highest_nats / step < MIN_THRESHOLDS:
        step /= 2
    return np.arange(1, math.ceil(highest_nats / step) + 1) * step


def read_units(
    cache: TargetCache,
    teacher_id: str,
    number_of: Mapping[str, int],
    left_out: Collection[int] = (),
) -> Iterator[ConfidenceRows]:
    """Yields the rows of one committed unit of the teacher after the other.

    ``number_of``: video_id -> position in videos.parquet. Rows of the videos at the positions
    ``left_out``, and of those without a usable output, are skipped. Raises CacheCorruptError for a
    table that differs from its commit record or does not match its frames.
    """
    layout, space = cache.layout, cache.manifest.row_space
    record = cache.teachers[teacher_id]
    for unit in committed_units(layout, teacher_id, space.units):
        commit = read_commit(layout, record, unit)
        frames = read_frames(layout, commit, space.capacity)
        confidence = read_confidence(layout, record, commit, space.capacity)
        if commit.unanswered or commit.refused:
            answered = answered_rows(frames, commit)
            frames, confidence = frames.filter(answered), confidence.filter(answered)
        ids = frames["video_id"].combine_chunks().dictionary_encode()
        numbers = np.array([number_of.get(name, -1) for name in ids.dictionary.to_pylist()], int)
        if not frames["row"].equals(confidence["row"]) or (numbers < 0).any():
            raise CacheCorruptError(
                f"unit {unit} of teacher {teacher_id} does not match its frames",
                expected="the same rows, of videos in videos.parquet",
                found=f"{confidence.num_rows} and {frames.num_rows} rows, "
                f"{(numbers < 0).sum()} unknown videos",
                remedy="run `distinit cache verify` and extract the damaged units again",
            )
        video_N = numbers[ids.indices.to_numpy()]
        kept_N = ~np.isin(video_N, list(left_out))
        yield ConfidenceRows(
            video_N=video_N[kept_N],
            frame_index_N=column(frames, "frame_index")[kept_N],
            entropy_nats_N=column(confidence, "entropy_nats")[kept_N],
            top1_class_N=column(confidence, "top1_class")[kept_N],
            top1_probability_N=column(confidence, "top1_probability")[kept_N],
        )
