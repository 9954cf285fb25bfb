"""Exact quantiles of a teacher's entropies, over the corpus and over the whole cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distinit.pipeline.cache.quantile import blocks_of, quantiles
from distinit.pipeline.cache.reader import TargetCache

__all__ = ["KEEP_FRACTIONS", "EntropyQuantiles", "read_quantiles"]

KEEP_FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)
_QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class EntropyQuantiles:
    """Quantiles of one teacher's entropies, in nats."""

    quartiles_nats: tuple[float, float, float]
    """Over the videos of the corpus, like the other statistics of the report."""
    thresholds_nats: tuple[float, ...]
    """One per fraction in KEEP_FRACTIONS, over all rows of the cache."""


def read_quantiles(cache: TargetCache, teacher_id: str) -> EntropyQuantiles:
    """The quantiles of one teacher that stores logits; NaN if there are no entropies.

    Frames without a usable output have no entropy and do not count. Memory does not grow with the
    number of frames. Raises CacheCorruptError if the index of a damaged cache cannot be built, and
    StorageError if it cannot be written.
    """
    entropy_nats_N = cache.targets(teacher_id).entropy_nats
    thresholds = quantiles(lambda: blocks_of(entropy_nats_N), KEEP_FRACTIONS)
    low, median, high = quantiles(lambda: _corpus_blocks(cache, entropy_nats_N), _QUARTILES)
    return EntropyQuantiles((low, median, high), tuple(thresholds))


def _corpus_blocks(cache: TargetCache, entropy_nats_N: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of entropies, without the rows of videos that the corpus no longer contains."""
    in_corpus_V = _in_corpus(cache)
    for entropy_nats_M, number_M in zip(
        blocks_of(entropy_nats_N), blocks_of(cache.index.video_number), strict=True
    ):
        # An unused row has the number -1: whatever is looked up for it, its entropy is NaN.
        yield entropy_nats_M[in_corpus_V[number_M]]


def _in_corpus(cache: TargetCache) -> np.ndarray:
    """bool [V]: whether the corpus contains each video, by its number in the index."""
    videos = cache.videos.filter(cache.videos.column("in_corpus"))
    ids = [video_id.encode() for video_id in videos.column("video_id").to_pylist()]
    in_corpus_V = np.zeros(len(cache.index.video_ids), np.bool_)
    in_corpus_V[cache.index.numbers_of(np.array(ids, np.bytes_))] = True
    return in_corpus_V
