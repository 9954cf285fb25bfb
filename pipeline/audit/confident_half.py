"""Which classes fill the more confident half of the frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distinit.pipeline.audit.samples import class_name
from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.schemas.audit_confident_half import ConfidentHalf, HalfClass

__all__ = ["confident_half"]


def confident_half(scan: ConfidenceScan, label_names: Sequence[str], count: int) -> ConfidentHalf:
    """The ``count`` most frequent classes up to the first threshold that keeps half of the frames.

    The scan must have counted at least one frame. Ties are sorted by class index.
    """
    kept_B = np.cumsum(scan.bin_frames)
    last = int(np.searchsorted(kept_B, scan.frames / 2))
    half_C = scan.joint_CB[:, : last + 1].sum(axis=1, dtype=np.int64)
    order = np.argsort(-half_C, kind="stable")
    frames, cumulated = int(half_C.sum()), np.cumsum(half_C[order])
    all_C = scan.class_frames
    return ConfidentHalf(
        max_entropy_nats=(last + 1) * scan.bins.step_nats,
        frames=frames,
        classes=int(np.count_nonzero(half_C)),
        classes_of_half=int(np.searchsorted(cumulated, frames / 2)) + 1,
        top_classes=tuple(
            HalfClass(
                class_index=index,
                name=class_name(label_names, index),
                frames=int(half_C[index]),
                share_of_half=float(half_C[index] / frames),
                share_of_all=float(all_C[index] / scan.frames),
            )
            for index in order[:count].tolist()
            if half_C[index] > 0
        ),
    )
