"""Whether a teacher tells frames apart at all: sums a unit, merged over a cache."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from distinit.schemas.manifest import AnswerSums
from distinit.schemas.teacher import AnswerReport, TeacherIdentity

__all__ = ["answer_report", "answer_sums"]

_FLAT = 1 + 1e-6  # times 1/classes: the largest probability where all logits are equal


def answer_sums(confidence: Mapping[str, np.ndarray], classes: int, rows: np.ndarray) -> AnswerSums:
    """Over the frames at ``rows`` of the columns of a confidence table."""
    if not len(rows):
        return AnswerSums()
    top1_N = confidence["top1_class"][rows]
    named, frames = np.unique(top1_N, return_counts=True)
    most = int(frames.argmax())
    flat_N = confidence["top1_probability"][rows].astype(np.float64) * classes <= _FLAT
    return AnswerSums(
        frames=len(rows),
        entropy_nats_sum=float(confidence["entropy_nats"][rows].astype(np.float64).sum()),
        ties=int((confidence["margin"][rows] == 0).sum()),
        flat=int(flat_N.sum()),
        top_class=int(named[most]),
        top_class_frames=int(frames[most]),
    )


def answer_report(
    sums: Iterable[AnswerSums | None], identity: TeacherIdentity
) -> AnswerReport | None:
    """Merge the sums of all units; None without a single frame, and for features.

    Units name their commonest class only. That finds a class of nearly all frames, whose share
    comes out a little too small at most.
    """
    parts = [part for part in sums if part is not None and part.frames]
    frames = sum(part.frames for part in parts)
    if not frames:
        return None
    named: Counter[int] = Counter()
    for part in parts:
        named[part.top_class] += part.top_class_frames
    top_class, top_frames = min(named.items(), key=lambda item: (-item[1], item[0]))
    return AnswerReport(
        frames=frames,
        mean_entropy_nats=sum(part.entropy_nats_sum for part in parts) / frames,
        highest_possible_nats=math.log(identity.classes),
        tied_fraction=sum(part.ties for part in parts) / frames,
        flat_fraction=sum(part.flat for part in parts) / frames,
        top_class=top_class,
        top_class_name="".join(identity.label_names[top_class : top_class + 1]),
        top_class_fraction=top_frames / frames,
    )
