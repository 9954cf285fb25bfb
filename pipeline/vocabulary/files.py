"""Reads and writes vocabulary files: safetensors with names and metadata in the header."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from distinit.pipeline.records import parse_json
from distinit.pipeline.storage import atomic_path
from distinit.pipeline.tensors import (
    TensorShape,
    read_metadata,
    read_shapes,
    read_tensors,
    write_tensors,
)
from distinit.pipeline.vocabulary.vocabulary import Vocabulary, vocabulary_sha256
from distinit.schemas.base import canonical_json
from distinit.schemas.errors import VocabularyError
from distinit.schemas.teacher import MAX_CLASSES
from distinit.schemas.vocabulary import VocabularyMetadata
from distinit.schemas.wording import reason_of, shown

__all__ = ["read_vocabulary", "write_vocabulary"]

MAX_EMBEDDING_BYTES = 4 << 30
_MAX_NAMES_BYTES = 7 << 20  # the header of a safetensors file may have 8 MiB
_EMBEDDINGS = "text_embeddings_KD"
_SCALE = "scale"
_SCALES = (0.01, 10_000.0)  # CLIP: 100 at most
_LABEL_CHARACTERS = 40
_REMEDY = "make the file again, for example with examples/clip_vocabulary.py"


def read_vocabulary(path: Path) -> Vocabulary:
    """Read and check a vocabulary file, which may come from anyone.

    Raises VocabularyError for a file that is missing, malformed or too large, for names that are
    empty or occur twice, and for embeddings that are not finite or are all 0.
    """
    try:
        shapes = read_shapes(path)
        _check_shapes(shapes)
        text = read_metadata(path).get(VocabularyMetadata.key)
        if text is None:
            raise ValueError(f"its header has no key {VocabularyMetadata.key}")
        parse_json(text.encode())  # refuses keys that occur twice
        metadata = VocabularyMetadata.model_validate_json(text, strict=True)
        tensors = read_tensors(path, shapes)
        return _vocabulary(path, metadata, tensors)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        found = f"{place}: {message}" if place else message
        raise _unusable(path, found) from invalid
    except FileNotFoundError as error:
        raise VocabularyError(
            f"the vocabulary {path} cannot be read",
            expected="a vocabulary file (.safetensors)",
            found="nothing at that path",
            remedy="check the path",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(path, reason_of(error)) from error


def write_vocabulary(
    path: Path,
    embeddings_KD: NDArray[np.float32],
    metadata: VocabularyMetadata,
    *,
    scale: float,
) -> Vocabulary:
    """Write a vocabulary file, and return what a reader finds in it.

    ``embeddings_KD``: one row per name, of any norm. ``scale``: the factor of the cosine, which is
    the exponential of CLIP's ``logit_scale``.

    Raises VocabularyError for what ``read_vocabulary`` refuses; StorageError.
    """
    tensors = {_EMBEDDINGS: torch.from_numpy(np.ascontiguousarray(embeddings_KD, np.float32))}
    tensors[_SCALE] = torch.tensor(scale, dtype=torch.float32)
    text = canonical_json(metadata.model_dump(mode="json"))
    try:
        if len(text.encode()) > _MAX_NAMES_BYTES:
            raise ValueError(f"names and metadata of more than {_MAX_NAMES_BYTES >> 20} MiB")
        _check_shapes({name: TensorShape.of(tensor) for name, tensor in tensors.items()})
        vocabulary = _vocabulary(path, metadata, tensors)
    except ValueError as error:
        raise _unusable(path, str(error)) from error
    with atomic_path(path) as partial:
        write_tensors(tensors, partial, {VocabularyMetadata.key: text})
    return vocabulary


def _check_shapes(shapes: dict[str, TensorShape]) -> None:
    """Raise ValueError unless these are the tensors of a vocabulary. No tensor is read before."""
    if unknown := sorted(shapes.keys() - {_EMBEDDINGS, _SCALE}):
        raise ValueError(f"it has an unknown tensor {unknown[0][:80]}")
    if _EMBEDDINGS not in shapes:
        raise ValueError(f"it has no tensor {_EMBEDDINGS}")
    for name, found in shapes.items():
        if found.dtype != torch.float32:
            raise ValueError(f"{name} has type {found.dtype}, not torch.float32")
        if name == _SCALE and math.prod(found.shape) != 1:
            raise ValueError(f"{name} has shape {found.shape}, not ()")
    shape = shapes[_EMBEDDINGS].shape
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{_EMBEDDINGS} has shape {shape}, not (names, dimensions)")
    if max(shape) > MAX_CLASSES:
        raise ValueError(f"{_EMBEDDINGS} has shape {shape}; {MAX_CLASSES:,} names are allowed")
    if 4 * math.prod(shape) > MAX_EMBEDDING_BYTES:
        raise ValueError(f"{_EMBEDDINGS} has more than {MAX_EMBEDDING_BYTES >> 30} GiB")


def _vocabulary(path: Path, metadata: VocabularyMetadata, tensors: dict[str, Tensor]) -> Vocabulary:
    """Raises ValueError for values that give no logits."""
    values_KD = tensors[_EMBEDDINGS].numpy()
    if len(values_KD) != len(metadata.names):
        raise ValueError(f"{len(metadata.names):,} names for {len(values_KD):,} embeddings")
    norm_K1 = np.linalg.norm(values_KD.astype(np.float64), axis=1, keepdims=True)
    for wrong_K1, problem in ((~np.isfinite(norm_K1), "not finite"), (norm_K1 == 0, "all 0")):
        if wrong_K1.any():
            row = int(np.flatnonzero(wrong_K1)[0])
            raise ValueError(f"the embedding of {shown(metadata.names[row])} is {problem}")
    scale = float(tensors[_SCALE].item()) if _SCALE in tensors else 1.0
    if not _SCALES[0] <= scale <= _SCALES[1]:
        raise ValueError(f"scale {scale:g} is outside of {_SCALES[0]:g} .. {_SCALES[1]:g}")
    return Vocabulary(
        label=_label(path),
        metadata=metadata,
        text_KD=values_KD.astype(np.float64) / norm_K1,
        scale=scale,
        sha256=vocabulary_sha256(values_KD, metadata.names, scale),
    )


def _label(path: Path) -> str:
    """The name of the file as a part of teacher ids."""
    cleaned = re.sub(r"[^A-Za-z0-9._+-]", "-", path.name.removesuffix(".safetensors"))
    return cleaned[:_LABEL_CHARACTERS] or "vocabulary"


def _unusable(path: Path, found: str) -> VocabularyError:
    return VocabularyError(
        f"{path} is not a usable vocabulary",
        expected=f"a safetensors file with {_EMBEDDINGS} (fp32, one row per name), and names and "
        "networks in its header; see docs/vocabularies.md",
        found=found,
        remedy=_REMEDY,
    )
