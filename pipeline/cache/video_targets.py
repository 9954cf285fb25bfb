"""The targets of one video from one teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.schemas.errors import CacheError

__all__ = ["VideoTargets", "no_entropy"]


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
    """As ``entropy_nats``; None for features, which have no entropy."""

    def __len__(self) -> int:
        return len(self.frame_N)

    @property
    def entropy_nats(self) -> NDArray[np.float32]:
        """Entropy of the softmax of each frame [N], computed before the logits were encoded.

        Raises CacheError for a teacher that stores features, which have no entropy.
        """
        if self.entropy_nats_N is None:
            raise no_entropy(self.teacher_id)
        return self.entropy_nats_N


def no_entropy(teacher_id: str) -> CacheError:
    """The error for a teacher that stores features, where entropy is needed."""
    return CacheError(
        f"teacher {teacher_id} stores features, which have no entropy",
        expected="a teacher whose target is logits",
        found="target features",
        remedy="choose another teacher",
    )
