"""Two teachers of one cache, frame by frame: joint density of their entropies, and agreement."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.bins import COARSE_BINS, EntropyBins
from distinit.pipeline.audit.renumbering import RenumberingScan
from distinit.pipeline.audit.runs import VideoExtremes, VideoRuns
from distinit.pipeline.audit.units import ConfidenceRows
from distinit.schemas.audit_comparisons import TeacherPairAudit
from distinit.schemas.teacher import TeacherRecord

__all__ = ["PairScan"]

_MERGED = 2  # coarse bins per cell of the joint density
_CELLS = COARSE_BINS // _MERGED
_MOST_CLASSES = 4096  # with more, the classes are only compared one to one


class PairScan:
    """Accumulates over the units of a cache. Memory does not grow with the number of frames."""

    def __init__(self, first: TeacherRecord, second: TeacherRecord, videos: int) -> None:
        self.first, self.second = first, second
        self.bins = tuple(EntropyBins.of(t.identity.classes) for t in (first, second))
        self.joint_BB = np.zeros((COARSE_BINS, COARSE_BINS), np.int64)
        self.frames = self.same_class = 0
        self._moments = np.zeros(5)  # sums of a, b, a², b², ab
        self.same_labels = first.identity.classes == second.identity.classes and (
            (first.identity.label_space, first.identity.label_names)
            == (second.identity.label_space, second.identity.label_names)
        )
        small = self.same_labels and first.identity.classes <= _MOST_CLASSES
        classes = first.identity.classes if small else 0
        self._renumbering = RenumberingScan(classes)
        self.only_first = VideoExtremes(videos)
        """Of each video, the frame of which the first teacher is surest against the second."""
        self.only_second = VideoExtremes(videos)

    def add(self, first: ConfidenceRows, second: ConfidenceRows) -> None:
        """Count the rows of one unit that both teachers have."""
        _, at_N, of_N = np.intersect1d(
            first.row_N, second.row_N, assume_unique=True, return_indices=True
        )
        if not len(at_N):
            return
        a, b = first.taken(at_N), second.taken(of_N)
        self.frames += len(at_N)
        self._add_entropies(a, b)
        if self.same_labels:
            self.same_class += int((a.top1_class_N == b.top1_class_N).sum())
        self._renumbering.add(a.video_N, a.top1_class_N, b.top1_class_N)

    def _add_entropies(self, a: ConfidenceRows, b: ConfidenceRows) -> None:
        bin_a, bin_b = (
            bins.bins_of(rows.entropy_nats_N) // bins.merged
            for bins, rows in zip(self.bins, (a, b), strict=True)
        )
        counts = np.bincount(bin_a * COARSE_BINS + bin_b, minlength=COARSE_BINS**2)
        self.joint_BB += counts.reshape(COARSE_BINS, COARSE_BINS)
        x_N, y_N = (rows.entropy_nats_N.astype(np.float64) for rows in (a, b))
        moments = [x_N.sum(), y_N.sum(), x_N @ x_N, y_N @ y_N, x_N @ y_N]
        self._moments += np.array(moments, np.float64)
        runs = VideoRuns.of(a.video_N)
        lead_N = x_N / self.bins[0].highest_nats - y_N / self.bins[1].highest_nats
        self.only_first.add(runs, lead_N, a)
        self.only_second.add(runs, -lead_N, b)

    def summary(self) -> TeacherPairAudit:
        """What was found; at least one frame must have been counted."""
        joint_KK = self.joint_BB.reshape(_CELLS, _MERGED, _CELLS, _MERGED).sum(axis=(1, 3))
        sure_a, sure_b = (_surer_half(self.joint_BB.sum(axis=axis)) for axis in (1, 0))
        both_sure = int(self.joint_BB[np.ix_(sure_a, sure_b)].sum())
        only = [int(self.joint_BB[sure_a].sum()), int(self.joint_BB[:, sure_b].sum())]
        mapped = self._renumbering.agreement()
        edges = [bins.coarse_edges_nats()[::_MERGED].tolist() for bins in self.bins]
        return TeacherPairAudit(
            first=self.first.id,
            second=self.second.id,
            frames=self.frames,
            correlation=self._correlation(),
            edges_first_nats=edges[0],
            edges_second_nats=edges[1],
            joint_frames=tuple(map(tuple, joint_KK.tolist())),
            only_first_sure=(only[0] - both_sure) / self.frames,
            only_second_sure=(only[1] - both_sure) / self.frames,
            agreement=self.same_class / self.frames if self.same_labels else None,
            mapped_agreement=mapped and mapped.renumbered,
            unmapped_agreement=mapped and mapped.without,
        )

    def _correlation(self) -> float:
        a, b, aa, bb, ab = self._moments / self.frames
        spread = np.sqrt(max(aa - a * a, 0) * max(bb - b * b, 0))
        return float(np.clip((ab - a * b) / spread, -1, 1)) if spread > 1e-12 else 0.0


def _surer_half(frames_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """The coarse bins up to the median."""
    last = int(np.searchsorted(np.cumsum(frames_B), frames_B.sum() / 2))
    return np.arange(last + 1)
