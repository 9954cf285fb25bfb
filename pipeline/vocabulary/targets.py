"""Reads stored features as the logits of a vocabulary, with the interface of stored targets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distinit.pipeline.cache.confidence import confidence_of
from distinit.pipeline.cache.teacher_targets import OpenCache, TeacherTargets
from distinit.pipeline.cache.video_targets import VideoTargets
from distinit.pipeline.derived import (
    columns_are_valid,
    derive_columns,
    index_folder,
    map_column,
    new_column,
)
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.vocabulary.relabelled import relabelled_record
from distinit.pipeline.vocabulary.vocabulary import Vocabulary
from distinit.schemas.base import sha256_of
from distinit.schemas.teacher import TeacherRecord

__all__ = ["VocabularyTargets"]

_VERSION = 1
_COLUMN = "entropy_nats"


class VocabularyTargets(TeacherTargets):
    """The logits that a vocabulary gives to the stored features of one teacher.

    ``record`` describes the logits, ``stored_record`` the features. Raises VocabularyError if they
    do not fit.
    """

    def __init__(
        self,
        cache: OpenCache,
        record: TeacherRecord,
        vocabulary: Vocabulary,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(cache, relabelled_record(record, vocabulary))
        self.vocabulary = vocabulary
        self._features = TeacherTargets(cache, record)
        self._progress = progress or NullProgress()

    @property
    def stored_record(self) -> TeacherRecord:
        return self._features.record

    @property
    def video_ids(self) -> tuple[str, ...]:
        return self._features.video_ids

    @cached_property
    def committed_units(self) -> np.ndarray:
        return self._features.committed_units

    def of(self, video_id: str, frames: Sequence[int] | np.ndarray | None = None) -> VideoTargets:
        features = self._features.of(video_id, frames)
        logits_NK = self.vocabulary.logits(features.logits_NC)
        return VideoTargets(
            video_id=video_id,
            teacher_id=self.record.id,
            frame_N=features.frame_N,
            pts_seconds_N=features.pts_seconds_N,
            logits_NC=logits_NK,
            entropy_nats_N=confidence_of(logits_NK).entropy_nats,
        )

    def logits(self, rows: np.ndarray) -> np.ndarray:
        return self.vocabulary.logits(self._features.logits(rows))

    def stored(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return self._features.stored(rows)

    @cached_property
    def entropy_nats(self) -> np.ndarray:
        """fp32 [rows_padded], memory-mapped; NaN in rows without features.

        Computed from all stored features when a machine first needs it, and kept with the index of
        the cache. Raises CacheCorruptError for damaged features, StorageError.
        """
        folder = index_folder(self._key())
        if not columns_are_valid(folder, _VERSION):
            derive_columns(folder, _VERSION, self._write_entropies)
        return map_column(folder, _COLUMN)

    def _key(self) -> str:
        return sha256_of(
            {
                "what": "distinit vocabulary entropies",
                "index": self.cache.index.folder.name,  # a digest of plan, teachers and commits
                "teacher": self.stored_record.id,
                "vocabulary": self.vocabulary.sha256,
            }
        )

    def _write_entropies(self, folder: Path) -> None:
        index, capacity = self.cache.index, self.unit_rows
        entropy_nats = new_column(folder, _COLUMN, len(index.video_number), np.float32)
        entropy_nats[:] = np.nan
        units = np.flatnonzero(self.committed_units).tolist()
        self._progress.start("vocabulary", len(units), "units")
        try:
            for unit in units:
                rows_N = np.arange(unit * capacity, (unit + 1) * capacity)
                rows_N = rows_N[np.asarray(index.video_number[rows_N]) >= 0]
                rows_N = np.setdiff1d(rows_N, index.unanswered(self.stored_record.id))
                for part in self.vocabulary.blocks(len(rows_N)):
                    confidence = confidence_of(self.logits(rows_N[part]))
                    entropy_nats[rows_N[part]] = confidence.entropy_nats
                self._progress.advance()
        finally:
            self._progress.finish()
        if isinstance(entropy_nats, np.memmap):
            entropy_nats.flush()

    def __reduce__(self) -> tuple[type[TeacherTargets], tuple[Any, ...]]:
        return VocabularyTargets, (self.cache, self.stored_record, self.vocabulary)
