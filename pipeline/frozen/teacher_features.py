"""The teacher as a row of a comparison: its stored outputs, averaged per video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.teacher_targets import TeacherTargets
from distinit.pipeline.progress import Progress
from distinit.schemas.errors import CacheError

__all__ = ["DESCRIPTIONS", "teacher_features"]

_ROWS_AT_ONCE = 1024

DESCRIPTIONS = {
    "logits": "stored logits (not log-probabilities), mean over the rows of a video, minus their "
    "mean over the classes",
    "features": "stored features, mean over the rows of a video",
}
"""What the features are, by the kind of the teacher's targets."""


def teacher_features(
    cache: TargetCache, teacher_id: str, digests: Sequence[str], progress: Progress
) -> tuple[Tensor, Tensor]:
    """(float32 [N, C], bool [N]): mean outputs of the videos with these digests, and which exist.

    Videos are matched by the digest of their bytes. A video that the cache lacks, that has failed,
    or for which the teacher has no usable output, has the mean 0 and does not exist. Logits are
    defined up to a constant, which a cosine would see: their mean over the classes is subtracted.
    ``progress`` advances by one per video.

    Raises CacheError for an unknown teacher, or if none of the videos exists; CacheCorruptError.
    """
    targets = cache.targets(teacher_id)
    id_of = _ids_by_digest(cache)
    identity = targets.record.identity
    mean_NC = np.zeros((len(digests), identity.classes))
    exists_N = np.zeros(len(digests), np.bool_)
    for number, digest in enumerate(digests):
        if digest in id_of and (mean_C := _mean(targets, id_of[digest])) is not None:
            mean_NC[number], exists_N[number] = mean_C, True
        progress.advance()
    if not exists_N.any():
        raise CacheError(
            f"the cache {cache.layout.root} has no target of teacher {teacher_id} for these videos",
            expected="the target cache of the labelled videos, identified by their bytes",
            found=f"{len(id_of)} other videos",
            remedy="extract one: distinit extract --videos DATASET --teacher NAME --cache CACHE",
        )
    if identity.target == "logits":
        mean_NC -= mean_NC.mean(axis=1, keepdims=True)
    return torch.from_numpy(mean_NC).float(), torch.from_numpy(exists_N)


def _ids_by_digest(cache: TargetCache) -> dict[str, str]:
    columns = [cache.videos.column(name).to_pylist() for name in ("digest", "video_id", "status")]
    return {digest: name for digest, name, status in zip(*columns, strict=True) if status == "ok"}


def _mean(targets: TeacherTargets, video_id: str) -> np.ndarray | None:
    """float64 [C], over the rows that have an output; None if there is no such row."""
    index = targets.cache.index
    number = index.number_of(video_id)
    first, count = int(index.first_row[number]), int(index.row_count[number])
    row_R = np.setdiff1d(
        np.arange(first, first + count), index.unanswered(targets.record.id), assume_unique=True
    )
    row_R = row_R[targets.committed_units[row_R // targets.unit_rows]]
    if not len(row_R):
        return None
    sum_C = np.zeros(targets.record.identity.classes)
    for start in range(0, len(row_R), _ROWS_AT_ONCE):
        logits_BC = targets.logits(row_R[start : start + _ROWS_AT_ONCE])
        sum_C += logits_BC.sum(axis=0, dtype=np.float64)
    return sum_C / len(row_R)
