"""Judges stored targets by recomputed ones: same bits, within the noise, or different.

A value may differ by what the encoding rounds, and by the noise floor. Stored numbers never widen
what is allowed: both follow from the recomputed outputs alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from distinit.pipeline.cache.plausible import confidence_agrees, rounding_float16
from distinit.pipeline.cache.target_rows import target_rows
from distinit.pipeline.recompute.noise import deviation_of, spread_of
from distinit.schemas.teacher import TeacherRecord, parse_encoding

__all__ = ["JudgedRows", "judge_rows"]

_INT8_LEVELS = 255
_INT8_KEPT = 0.6  # int8 keeps at least this share of the range of a row (see encoding.py)


@dataclass(frozen=True, slots=True)
class JudgedRows:
    """One entry per row.

    Attributes:
        same_bits_N: Targets and confidence are what this machine stores, to the last bit.
        targets_agree_N: Every value is within the noise and the rounding of the encoding.
        confidence_agrees_N: So is the confidence; true for features, which have none.
        deviation_N: Largest difference of a stored value, as a share of the row's spread.
    """

    same_bits_N: np.ndarray
    targets_agree_N: np.ndarray
    confidence_agrees_N: np.ndarray
    deviation_N: np.ndarray


def judge_rows(
    record: TeacherRecord,
    stored: Mapping[str, np.ndarray],
    columns: Mapping[str, np.ndarray],
    outputs_NC: np.ndarray,
    allowed: float,
) -> JudgedRows:
    """Compare rows of a cache with the fp32 ``outputs_NC`` of their frames.

    Args:
        record: The teacher.
        stored: Its encoded targets, array -> [N, width].
        columns: Columns of its confidence table for these rows; none for features.
        outputs_NC: Recomputed logits or features.
        allowed: Deviation that counts as noise, as a share of a row's spread.
    """
    noise_N = allowed * spread_of(outputs_NC)
    again = target_rows(outputs_NC, record)
    same_N = np.ones(len(outputs_NC), bool)
    for ours, theirs in [
        *((again.arrays[name], values) for name, values in stored.items()),
        *((again.confidence[name], values) for name, values in columns.items()),
    ]:
        same_N &= (ours == theirs).reshape(len(same_N), -1).all(axis=1)
    compare = {"float16": _float16, "int8": _int8, "topk": _topk}[
        parse_encoding(record.encoding)[0]
    ]
    with np.errstate(all="ignore"):  # NaN never agrees
        agree_N, shown_NC = compare(stored, outputs_NC, noise_N)
        confident_N = np.ones(len(same_N), bool)
        if columns:
            confident_N = confidence_agrees(outputs_NC, columns, noise_N)
        deviation_N = np.nan_to_num(deviation_of(shown_NC, outputs_NC), nan=np.inf)
    return JudgedRows(same_N, agree_N | same_N, confident_N | same_N, deviation_N)


def _float16(
    stored: Mapping[str, np.ndarray], outputs_NC: np.ndarray, noise_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """bool [N]: whether the rows agree; and the stored values [N, C]."""
    values_NC = stored["logits"].astype(np.float64)
    allowed_NC = noise_N[:, None] + 2 * rounding_float16(outputs_NC)
    return (np.abs(values_NC - outputs_NC) <= allowed_NC).all(axis=1), values_NC


def _int8(
    stored: Mapping[str, np.ndarray], outputs_NC: np.ndarray, noise_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    scale_N1, zero_N1 = np.split(stored["logits_affine"].astype(np.float64), 2, axis=1)
    values_NC = scale_N1 * stored["logits"] + zero_N1
    high_N = outputs_NC.max(axis=1).astype(np.float64)
    range_N = high_N - outputs_NC.min(axis=1)
    allowed_N = noise_N + range_N / _INT8_LEVELS + 1e-6 * np.abs(outputs_NC).max(axis=1)
    near_NC = np.abs(values_NC - outputs_NC) <= allowed_N[:, None]
    # Values at the lowest level may have been raised to it, but that level has a limit.
    raised_NC = (stored["logits"] == -128) & (outputs_NC <= values_NC)
    raised_NC &= values_NC <= (high_N - _INT8_KEPT * range_N + allowed_N)[:, None]
    shown_NC = np.where(raised_NC, outputs_NC, values_NC)
    return (near_NC | raised_NC).all(axis=1), shown_NC


def _topk(
    stored: Mapping[str, np.ndarray], outputs_NC: np.ndarray, noise_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The K classes have the right values, no class occurs twice, and no other one is larger."""
    values_NK, ids_NK = stored["logits"].astype(np.float64), stored["logits_ids"].astype(np.int64)
    classes = outputs_NC.shape[1]
    valid_N = ((ids_NK >= 0) & (ids_NK < classes)).all(axis=1)
    valid_N &= (np.diff(np.sort(ids_NK, axis=1), axis=1) > 0).all(axis=1)
    ids_NK = ids_NK.clip(0, classes - 1)
    ours_NK = np.take_along_axis(outputs_NC, ids_NK, axis=1).astype(np.float64)
    allowed_NK = noise_N[:, None] + 2 * rounding_float16(ours_NK)
    agree_N = valid_N & (np.abs(values_NK - ours_NK) <= allowed_NK).all(axis=1)
    shown_NC = outputs_NC.astype(np.float64)
    others_NC = shown_NC.copy()
    np.put_along_axis(others_NC, ids_NK, -np.inf, axis=1)
    agree_N &= others_NC.max(axis=1) <= ours_NK.min(axis=1) + 2 * noise_N
    np.put_along_axis(shown_NC, ids_NK, values_NK, axis=1)
    return agree_N, shown_NC
