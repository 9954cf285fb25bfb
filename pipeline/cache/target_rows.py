"""Encodes the outputs of a teacher and computes what is stored with them. Pure: any thread may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from distinit.pipeline.cache.confidence import Confidence, Fidelity, confidence_of, fidelity_of
from distinit.pipeline.cache.encoding import decode, encode
from distinit.schemas.teacher import TeacherRecord

__all__ = ["TargetRows", "target_rows"]


@dataclass(frozen=True, slots=True)
class TargetRows:
    """Encoded targets of consecutive frames; for logits, also their confidence and fidelity.

    ``arrays``: name -> [N, width]. ``confidence``: column -> [N]; empty for features.
    """

    arrays: Mapping[str, np.ndarray]
    confidence: Mapping[str, np.ndarray]
    fidelity: Fidelity | None

    def __getitem__(self, part: slice) -> TargetRows:
        return TargetRows(
            {name: values[part] for name, values in self.arrays.items()},
            {name: values[part] for name, values in self.confidence.items()},
            None if self.fidelity is None else self.fidelity[part],
        )


def target_rows(logits_NC: np.ndarray, record: TeacherRecord) -> TargetRows:
    """Encode fp32 logits or features [N, C] of the teacher ``record``.

    Raises TeacherError if a value is not finite or does not fit the encoding.
    """
    encoding, identity = record.encoding, record.identity
    arrays = encode(logits_NC, encoding, identity.target).arrays
    if identity.target == "features":
        return TargetRows(arrays, {}, None)
    confidence = confidence_of(logits_NC)
    stored_NC = decode(arrays, encoding, identity.classes, confidence.log_z)
    columns = {field.name: getattr(confidence, field.name) for field in fields(Confidence)}
    return TargetRows(arrays, columns, fidelity_of(logits_NC, stored_NC))
