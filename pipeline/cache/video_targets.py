"""The targets of one video from one teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["VideoTargets"]


@dataclass(frozen=True, slots=True)
class VideoTargets:
    """Targets of N frames of one video."""

    video_id: str
    teacher_id: str
    frame_N: NDArray[np.int64]
    """Index of each frame: 0-based, of the decoded frames in display order."""
    pts_seconds_N: NDArray[np.float64]
    """Presentation time of each frame, as the file states it; the first need not be 0."""
    logits_NC: NDArray[np.float32]
    """Logits, before any softmax; features, for a teacher whose target is features."""
    entropy_nats_N: NDArray[np.float32] | None
    """Entropy of the softmax, computed before the logits were encoded; None for features."""

    def __len__(self) -> int:
        return len(self.frame_N)
