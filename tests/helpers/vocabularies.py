"""Small vocabularies with random text embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distinit.pipeline.vocabulary.files import write_vocabulary
from distinit.pipeline.vocabulary.vocabulary import Vocabulary
from distinit.schemas.vocabulary import VocabularyMetadata


def metadata_of(names: tuple[str, ...], **changes: Any) -> VocabularyMetadata:
    values = {"text_tower": "test/texts", "image_architecture": "test/tiny", "names": names}
    return VocabularyMetadata.model_validate(values | changes)


def random_embeddings(names: int, dimensions: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((names, dimensions)).astype(np.float32)


def make_vocabulary(
    path: Path,
    dimensions: int,
    *,
    names: int = 4,
    seed: int = 0,
    scale: float = 10.0,
    **metadata: Any,
) -> Vocabulary:
    texts = metadata_of(tuple(f"class {n}" for n in range(names)), **metadata)
    embeddings_KD = random_embeddings(names, dimensions, seed)
    return write_vocabulary(path, embeddings_KD, texts, scale=scale)
