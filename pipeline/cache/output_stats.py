"""Statistics over a teacher's outputs: how uncertain they are, and whether they differ at all.

Sums are stored per unit, in its commit record, and merged over the cache.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from distinit.schemas.manifest import OutputSums
from distinit.schemas.output_reports import OutputReport
from distinit.schemas.teacher import TeacherIdentity

__all__ = ["output_report", "output_sums"]

_FLAT = 1 + 1e-6  # times 1/classes: the largest probability where all logits are equal


def output_sums(confidence: Mapping[str, np.ndarray], classes: int, rows: np.ndarray) -> OutputSums:
    """Sums over the frames at ``rows``; ``confidence`` holds the columns of a confidence table."""
    if not len(rows):
        return OutputSums()
    top1_N = confidence["top1_class"][rows]
    top_classes, frame_counts = np.unique(top1_N, return_counts=True)
    most = int(frame_counts.argmax())
    flat_N = confidence["top1_probability"][rows].astype(np.float64) * classes <= _FLAT
    return OutputSums(
        frames=len(rows),
        entropy_nats_sum=float(confidence["entropy_nats"][rows].astype(np.float64).sum()),
        ties=int((confidence["margin"][rows] == 0).sum()),
        flat=int(flat_N.sum()),
        top_class=int(top_classes[most]),
        top_class_frames=int(frame_counts[most]),
    )


def output_report(
    sums: Iterable[OutputSums | None], identity: TeacherIdentity
) -> OutputReport | None:
    """Merge the sums of all units. Returns None for features and where there are no frames.

    Each unit records only its most frequent top class. This still finds a class that nearly all
    frames share; its fraction may come out slightly too small.
    """
    parts = [part for part in sums if part is not None and part.frames]
    frames = sum(part.frames for part in parts)
    if not frames:
        return None
    counts: Counter[int] = Counter()
    for part in parts:
        counts[part.top_class] += part.top_class_frames
    top_class, top_frames = min(counts.items(), key=lambda item: (-item[1], item[0]))
    return OutputReport(
        frames=frames,
        mean_entropy_nats=sum(part.entropy_nats_sum for part in parts) / frames,
        highest_possible_nats=math.log(identity.classes),
        tied_fraction=sum(part.ties for part in parts) / frames,
        flat_fraction=sum(part.flat for part in parts) / frames,
        top_class=top_class,
        top_class_name="".join(identity.label_names[top_class : top_class + 1]),
        top_class_fraction=top_frames / frames,
    )
