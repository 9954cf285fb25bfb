"""A vocabulary in memory: its logits for features, and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.schemas.base import sha256_of
from distinit.schemas.vocabulary import VocabularyMetadata

__all__ = ["Vocabulary", "vocabulary_sha256"]

_BLOCK_VALUES = 1 << 22  # logits that are computed at a time: 32 MiB in fp64
_SMALLEST_NORM = 1e-12


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Text embeddings with names, and the scale of their logits.

    ``label``: the name of its file without the suffix, as a part of teacher ids.
    ``text_KD``: fp64, each row of norm 1. ``scale`` multiplies the cosine. A bias, as SigLIP has
    one, would shift all logits of a row alike: it would change neither a softmax nor an entropy.
    """

    label: str
    metadata: VocabularyMetadata
    text_KD: NDArray[np.float64]
    scale: float
    sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.metadata.names

    def logits(self, features_ND: np.ndarray) -> NDArray[np.float32]:
        """Scale x cosine: fp32 [N, K].

        Computed in fp64, so that distill, audit and relabel get the same values on any machine.
        Features that are all 0 have the cosine 0 with every text.
        """
        features_ND = np.asarray(features_ND, np.float64)
        norm_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
        unit_ND = features_ND / np.maximum(norm_N1, _SMALLEST_NORM)
        logits_NK = unit_ND @ self.text_KD.T
        logits_NK *= self.scale
        logits: NDArray[np.float32] = logits_NK.astype(np.float32)
        return logits

    def blocks(self, rows: int) -> Iterator[slice]:
        """Cuts ``rows`` rows into parts whose logits take little memory."""
        step = max(1, _BLOCK_VALUES // len(self.names))
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))


def vocabulary_sha256(
    embeddings_KD: NDArray[np.float32], names: tuple[str, ...], scale: float
) -> str:
    """Digest of what decides the logits: embeddings as stored, names in order, and scale."""
    raw = np.ascontiguousarray(embeddings_KD, "<f4")
    return sha256_of(
        {
            "text_embeddings_KD": hashlib.sha256(raw.data).hexdigest(),
            "dimensions": int(raw.shape[1]),
            "names": list(names),
            "scale": scale,
        }
    )
