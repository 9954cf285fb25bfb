"""Compares the targets of two caches on the frames that both have. Memory is bounded."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from distinit.pipeline.cache.confidence import log_softmax
from distinit.pipeline.cache.encoding import decode
from distinit.pipeline.cache.target_rows import TargetRows
from distinit.pipeline.combining.rows import RowReader, equal_bits
from distinit.pipeline.combining.source import Source
from distinit.pipeline.progress import Progress
from distinit.schemas.combining import FrameDifference, TeacherDifference
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.teacher import TeacherRecord

__all__ = [
    "ENTROPY_BINS",
    "KL_EDGES_NATS",
    "ComparedFrames",
    "SharedVideo",
    "TeacherComparison",
    "compare_teachers",
    "frame_lines",
    "shared_videos",
]

ENTROPY_BINS = 1_000
KL_EDGES_NATS = np.logspace(-8, 2, 101)
"""Edges of the bins in which divergences are counted; smaller ones count in the first bin."""

_BLOCK_ROWS = 512
_WORST = 20


class SharedVideo(NamedTuple):
    """A video that has rows in both caches: its digest, its path in A, and its two ids."""

    digest: str
    path: str
    a: str
    b: str


class ComparedFrames(NamedTuple):
    """Values per frame, each [N]; entropies and divergences in nats, NaN for features."""

    video: SharedVideo
    frame_index: np.ndarray
    identical: np.ndarray
    kl_ab: np.ndarray
    kl_ba: np.ndarray
    entropy_a: np.ndarray
    entropy_b: np.ndarray
    same_top1: np.ndarray
    largest: np.ndarray


def shared_videos(a: Source, b: Source) -> list[SharedVideo]:
    """Videos with rows in both caches, in the order of their digests."""
    found = []
    for digest in sorted(a.id_of_digest.keys() & b.id_of_digest.keys()):
        ids = a.id_of_digest[digest], b.id_of_digest[digest]
        if all(s.decoded[v].status == "ok" for s, v in zip((a, b), ids, strict=True)):
            found.append(SharedVideo(digest, a.entries[ids[0]].path, *ids))
    return found


@dataclass
class TeacherComparison:
    """Sums over the frames of one pair of teachers, and the frames that differ most."""

    teacher_a: TeacherRecord
    teacher_b: TeacherRecord
    frames: int = 0
    identical: int = 0
    agreements: int = 0
    kl_sums: np.ndarray = field(default_factory=lambda: np.zeros(2))
    kl_largest: np.ndarray = field(default_factory=lambda: np.zeros(2))
    entropy_sums: np.ndarray = field(default_factory=lambda: np.zeros(2))
    entropy_error_sum: float = 0.0
    largest: float = 0.0
    entropy_counts: np.ndarray = field(
        default_factory=lambda: np.zeros((2, ENTROPY_BINS), np.int64)
    )
    kl_counts: np.ndarray = field(
        default_factory=lambda: np.zeros(len(KL_EDGES_NATS) - 1, np.int64)
    )
    _worst: list[tuple[float, str, int, FrameDifference]] = field(default_factory=list)

    @property
    def has_entropy(self) -> bool:
        """Whether both teachers store logits."""
        return {self.teacher_a.identity.target, self.teacher_b.identity.target} == {"logits"}

    @property
    def highest_nats(self) -> float:
        """The largest possible entropy."""
        return math.log(max(self.teacher_a.identity.classes, 2))

    def add(self, found: ComparedFrames) -> None:
        """Count some frames of one video."""
        self.frames += len(found.frame_index)
        self.identical += int(found.identical.sum())
        self.largest = max(self.largest, float(found.largest.max(initial=0.0)))
        if self.has_entropy:
            self._add_entropies(found)
        self._keep_worst(found)

    def _add_entropies(self, found: ComparedFrames) -> None:
        self.agreements += int(found.same_top1.sum())
        self.entropy_error_sum += float(np.abs(found.entropy_a - found.entropy_b).sum())
        for side, (kl_N, entropy_N) in enumerate(
            ((found.kl_ab, found.entropy_a), (found.kl_ba, found.entropy_b))
        ):
            self.kl_sums[side] += kl_N.sum()
            self.kl_largest[side] = max(self.kl_largest[side], kl_N.max(initial=0.0))
            self.entropy_sums[side] += entropy_N.sum()
            bins_N = (entropy_N / self.highest_nats * ENTROPY_BINS).astype(np.int64)
            bins_N = bins_N.clip(0, ENTROPY_BINS - 1)
            self.entropy_counts[side] += np.bincount(bins_N, minlength=ENTROPY_BINS)
        inside_N = found.kl_ab.clip(KL_EDGES_NATS[0], KL_EDGES_NATS[-1])
        self.kl_counts += np.histogram(inside_N, KL_EDGES_NATS)[0]

    def _keep_worst(self, found: ComparedFrames) -> None:
        by_N = found.kl_ab if self.has_entropy else found.largest
        for row in np.argsort(-by_N, kind="stable")[:_WORST].tolist():
            if not by_N[row] > 0:
                continue
            frame = FrameDifference(
                path=found.video.path,
                digest=found.video.digest,
                frame_index=int(found.frame_index[row]),
                kl_ab_nats=_number(found.kl_ab[row]),
                entropy_a_nats=_number(found.entropy_a[row]),
                entropy_b_nats=_number(found.entropy_b[row]),
                largest_difference=float(found.largest[row]),
            )
            # Of equal frames, the first ones stay: digests and numbers order them.
            key = (float(by_N[row]), _reversed(frame.digest), -frame.frame_index, frame)
            push = heapq.heappush if len(self._worst) < _WORST else heapq.heappushpop
            push(self._worst, key)

    def result(self) -> TeacherDifference:
        """The means over all frames."""
        frames = max(self.frames, 1)
        known = self.has_entropy and self.frames > 0
        drift = (self.entropy_sums[1] - self.entropy_sums[0]) / frames
        return TeacherDifference(
            teacher_a=self.teacher_a.id,
            teacher_b=self.teacher_b.id,
            frames=self.frames,
            identical=self.identical,
            largest_difference=self.largest,
            mean_kl_ab_nats=float(self.kl_sums[0] / frames) if known else None,
            max_kl_ab_nats=float(self.kl_largest[0]) if known else None,
            mean_kl_ba_nats=float(self.kl_sums[1] / frames) if known else None,
            max_kl_ba_nats=float(self.kl_largest[1]) if known else None,
            top1_agreement=self.agreements / frames if known else None,
            mean_entropy_a_nats=float(self.entropy_sums[0] / frames) if known else None,
            mean_entropy_b_nats=float(self.entropy_sums[1] / frames) if known else None,
            entropy_drift_nats=float(drift) if known else None,
            mean_entropy_error_nats=self.entropy_error_sum / frames if known else None,
            entropy_distance_nats=self._distance_nats() if known else None,
            worst=tuple(frame for *_, frame in sorted(self._worst, reverse=True)),
        )

    def _distance_nats(self) -> float:
        """Earth mover's distance of the two distributions of entropies, from their bins."""
        ends_2B = np.cumsum(self.entropy_counts, axis=1) / self.frames
        width_nats = self.highest_nats / ENTROPY_BINS
        return float(np.abs(ends_2B[0] - ends_2B[1]).sum() * width_nats)


def compare_teachers(
    a: RowReader,
    b: RowReader,
    comparisons: Sequence[TeacherComparison],
    videos: Sequence[SharedVideo],
    on_frames: Callable[[TeacherComparison, ComparedFrames], None],
    progress: Progress,
) -> tuple[int, int, int]:
    """Compare all pairs of teachers on the shared frames.

    ``on_frames``: called with each block of frames. Returns the numbers of frames in these videos
    that only A has, that only B has, and of shared frames with another perceptual hash.
    """
    only_a = only_b = other_hash = 0
    progress.start("compare", len(videos), "videos")
    for video in videos:
        rows_a, rows_b = a.extent(video.a)[1], b.extent(video.b)[1]
        frames_a, frames_b = a.frames(video.a, 0, rows_a), b.frames(video.b, 0, rows_b)
        shared_N, at_a_N, at_b_N = np.intersect1d(
            frames_a.frame_index, frames_b.frame_index, assume_unique=True, return_indices=True
        )
        only_a += rows_a - len(shared_N)
        only_b += rows_b - len(shared_N)
        hashes = frames_a.perceptual_hash[at_a_N] != frames_b.perceptual_hash[at_b_N]
        other_hash += int(hashes.sum())
        for start in range(0, len(shared_N), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            for comparison in comparisons:
                found = _compare(a, b, comparison, video, (at_a_N[part], at_b_N[part]))
                if found is not None:
                    found = found._replace(frame_index=shared_N[part])
                    comparison.add(found)
                    on_frames(comparison, found)
        progress.advance()
    progress.finish()
    return only_a, only_b, other_hash


def _compare(
    a: RowReader,
    b: RowReader,
    comparison: TeacherComparison,
    video: SharedVideo,
    at: tuple[np.ndarray, np.ndarray],
) -> ComparedFrames | None:
    """Compare some rows of a video, given within the video; None if a teacher has no targets."""
    teachers = comparison.teacher_a, comparison.teacher_b
    sides = list(zip((a, b), teachers, (video.a, video.b), at, strict=True))
    if not all(reader.source.answers(record.id, v) for reader, record, v, _ in sides):
        return None
    rows_a, rows_b = (_rows(reader, record.id, v, at_N) for reader, record, v, at_N in sides)
    x_NC, y_NC = (_decoded(r, t) for r, t in zip((rows_a, rows_b), teachers, strict=True))
    same = teachers[0].encoding == teachers[1].encoding
    count, nothing_N = len(x_NC), np.full(len(x_NC), np.nan)
    found = ComparedFrames(
        video=video,
        frame_index=at[0],
        identical=equal_bits(rows_a, rows_b) if same else np.zeros(count, bool),
        kl_ab=nothing_N,
        kl_ba=nothing_N,
        entropy_a=nothing_N,
        entropy_b=nothing_N,
        same_top1=np.zeros(count, bool),
        largest=np.abs(x_NC.astype(np.float64) - y_NC).max(axis=1),
    )
    if not comparison.has_entropy:
        return found
    logp_NC, logq_NC = log_softmax(x_NC)[0], log_softmax(y_NC)[0]
    return found._replace(
        kl_ab=_kl(logp_NC, logq_NC),
        kl_ba=_kl(logq_NC, logp_NC),
        entropy_a=_entropy(logp_NC),
        entropy_b=_entropy(logq_NC),
        same_top1=x_NC.argmax(axis=1) == y_NC.argmax(axis=1),
    )


def _rows(reader: RowReader, teacher_id: str, video_id: str, at_N: np.ndarray) -> TargetRows:
    """Rows at ascending positions within a video."""
    first, last = int(at_N[0]), int(at_N[-1])
    if last - first + 1 == len(at_N):
        return reader.targets(teacher_id, video_id, first, last + 1)
    parts = [reader.targets(teacher_id, video_id, int(at), int(at) + 1) for at in at_N]
    return TargetRows(
        {n: np.concatenate([p.arrays[n] for p in parts]) for n in parts[0].arrays},
        {n: np.concatenate([p.confidence[n] for p in parts]) for n in parts[0].confidence},
        None,
    )


def _decoded(rows: TargetRows, record: TeacherRecord) -> np.ndarray:
    log_z_N = rows.confidence.get("log_z")
    with np.errstate(all="ignore"):  # values that are not finite raise an error below
        values_NC = decode(rows.arrays, record.encoding, record.identity.classes, log_z_N)
    if not np.isfinite(values_NC).all():
        raise CacheCorruptError(
            f"teacher {record.id} has targets that are not finite",
            expected="finite values",
            found="NaN or infinity",
            remedy="run `distinit cache verify` on both caches; ask their senders for clean copies",
        )
    return values_NC


def _kl(logp_NC: np.ndarray, logq_NC: np.ndarray) -> np.ndarray:
    kl_N: np.ndarray = np.maximum((np.exp(logp_NC) * (logp_NC - logq_NC)).sum(axis=1), 0.0)
    return kl_N


def _entropy(logp_NC: np.ndarray) -> np.ndarray:
    """Of the stored targets; the confidence columns stay those of the teacher's fp32 logits."""
    entropy_N: np.ndarray = np.maximum(-(np.exp(logp_NC) * logp_NC).sum(axis=1), 0.0)
    return entropy_N


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _reversed(digest: str) -> str:
    """Sorts in the opposite order of hexadecimal digests."""
    return digest.translate(str.maketrans("0123456789abcdef", "fedcba9876543210"))


def frame_lines(
    comparison: TeacherComparison, found: ComparedFrames
) -> Iterator[tuple[str | int | float, ...]]:
    """One row per frame for the table of the differences."""
    for row, frame in enumerate(found.frame_index.tolist()):
        yield (
            found.video.path,
            found.video.digest,
            frame,
            comparison.teacher_a.id,
            comparison.teacher_b.id,
            int(found.identical[row]),
            int(found.same_top1[row]),
            float(found.kl_ab[row]),
            float(found.kl_ba[row]),
            float(found.entropy_a[row]),
            float(found.entropy_b[row]),
            float(found.largest[row]),
        )
