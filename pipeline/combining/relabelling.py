"""Turns stored features into encoded logits of a vocabulary, by the code of an extraction."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from distinit.pipeline.cache.confidence import Fidelity
from distinit.pipeline.cache.encoding import decode
from distinit.pipeline.cache.target_rows import TargetRows, target_rows
from distinit.pipeline.vocabulary.vocabulary import Vocabulary
from distinit.schemas.errors import CacheError, TeacherError
from distinit.schemas.teacher import TeacherRecord

__all__ = ["relabelled_rows"]


def relabelled_rows(
    rows: TargetRows, before: TeacherRecord, after: TeacherRecord, vocabulary: Vocabulary
) -> TargetRows:
    """The logits that ``vocabulary`` gives to the features ``rows`` of ``before``, with confidence.

    Fidelity is measured against these logits in fp32. Raises CacheError for values that the
    encoding of ``after`` cannot store.
    """
    count = len(next(iter(rows.arrays.values())))
    parts = []
    for part in vocabulary.blocks(count):
        arrays = {name: values[part] for name, values in rows.arrays.items()}
        features_ND = decode(arrays, before.encoding, before.identity.classes)
        try:
            parts.append(target_rows(vocabulary.logits(features_ND), after))
        except TeacherError as error:
            raise CacheError(
                f"the logits of vocabulary {vocabulary.label} cannot be stored as {after.encoding}",
                expected=error.expected,
                found=error.found,
                remedy="choose another --encoding, or check the scale of the vocabulary",
            ) from error
    return _joined(parts)


def _joined(parts: list[TargetRows]) -> TargetRows:
    losses = [part.fidelity for part in parts if part.fidelity is not None]
    names, columns = parts[0].arrays, parts[0].confidence
    return TargetRows(
        {name: np.concatenate([part.arrays[name] for part in parts]) for name in names},
        {name: np.concatenate([part.confidence[name] for part in parts]) for name in columns},
        Fidelity(*(np.concatenate([getattr(x, f.name) for x in losses]) for f in fields(Fidelity))),
    )
