"""Encodes the outputs of a teacher and computes what is stored with them. Pure: any thread may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from distinit.pipeline.cache.confidence import (
    Confidence,
    Fidelity,
    confidence_of,
    fidelity_of,
    precision_loss_sums,
)
from distinit.pipeline.cache.encoding import decode, encode
from distinit.pipeline.cache.feature_fidelity import (
    FeatureFidelity,
    feature_fidelity_of,
    feature_precision_loss_sums,
)
from distinit.schemas.feature_sums import FeatureFidelitySums
from distinit.schemas.manifest import FidelitySums
from distinit.schemas.teacher import TeacherRecord

__all__ = ["LossSums", "TargetRows", "precision_loss", "target_rows"]

type LossSums = FidelitySums | FeatureFidelitySums


@dataclass(frozen=True, slots=True)
class TargetRows:
    """Encoded targets of consecutive frames; for logits, also their confidence and fidelity.

    ``arrays``: name -> [N, width]. ``confidence``: column -> [N]; empty for features, whose
    fidelity is ``feature_fidelity``.
    """

    arrays: Mapping[str, np.ndarray]
    confidence: Mapping[str, np.ndarray]
    fidelity: Fidelity | None
    feature_fidelity: FeatureFidelity | None = None

    def __getitem__(self, part: slice) -> TargetRows:
        return TargetRows(
            {name: values[part] for name, values in self.arrays.items()},
            {name: values[part] for name, values in self.confidence.items()},
            None if self.fidelity is None else self.fidelity[part],
            None if self.feature_fidelity is None else self.feature_fidelity[part],
        )


def target_rows(logits_NC: np.ndarray, record: TeacherRecord) -> TargetRows:
    """Encode fp32 logits or features [N, C] of the teacher ``record``.

    Raises TeacherError if a value is not finite or does not fit the encoding.
    """
    encoding, identity = record.encoding, record.identity
    arrays = encode(logits_NC, encoding, identity.target).arrays
    if identity.target == "features":
        stored_NC = decode(arrays, encoding, identity.classes)
        return TargetRows(arrays, {}, None, feature_fidelity_of(logits_NC, stored_NC))
    confidence = confidence_of(logits_NC)
    stored_NC = decode(arrays, encoding, identity.classes, confidence.log_z)
    columns = {field.name: getattr(confidence, field.name) for field in fields(Confidence)}
    return TargetRows(arrays, columns, fidelity_of(logits_NC, stored_NC))


def precision_loss(exact_NC: np.ndarray, targets_NC: np.ndarray, record: TeacherRecord) -> LossSums:
    """Sums over frames whose targets were computed in fp32 (``exact_NC``) and as they are stored.

    Neither is encoded.
    """
    if record.identity.target == "features":
        return feature_precision_loss_sums(exact_NC, targets_NC)
    return precision_loss_sums(exact_NC, targets_NC)
