"""Checks whether the confidence of rows can come from targets that are stored as these are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distinit.pipeline.cache.confidence import Confidence
from distinit.pipeline.cache.digest import StoredRows
from distinit.pipeline.cache.encoding import decode
from distinit.schemas.teacher import TeacherRecord, parse_encoding

__all__ = ["confidence_agrees", "first_implausible", "rounding_float16"]

_BLOCK_VALUES = 1 << 17  # fp32 blocks of this size stay in the cache of a core
_FLOAT16_STEP = 2.0**-11  # half a unit in the last place, relative
_FLOAT16_TINY = 2.0**-25  # absolute, below the normal range
_INT8_HALF_STEPS = 2 * 255  # in the range of a row
_SLACK = 1e-4  # fp32 rounding of the stored columns, and of the recomputed ones


def first_implausible(
    record: TeacherRecord,
    arrays: Mapping[str, StoredRows],
    used_N: np.ndarray,
    columns: Mapping[str, np.ndarray],
    unanswered_N: np.ndarray,
) -> int | None:
    """Index in ``used_N`` of the first row whose confidence cannot come from its targets.

    ``used_N``: rows of ``arrays``, to which the ``columns`` of the confidence table belong.
    ``unanswered_N``: rows without targets, which are not checked. None if all rows are plausible.
    """
    step = max(_BLOCK_VALUES // record.identity.classes, 1)
    for start in range(0, len(used_N), step):
        part = slice(start, start + step)
        stored = {name: values[used_N[part]] for name, values in arrays.items()}
        block = {name: values[part] for name, values in columns.items()}
        wrong_N = ~_plausible(record, stored, block) & ~unanswered_N[part]
        if wrong_N.any():
            return start + int(wrong_N.argmax())
    return None


def _plausible(
    record: TeacherRecord, stored: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]
) -> np.ndarray:
    """bool [N]: the confidence can come from targets that encode to ``stored``."""
    kind, _ = parse_encoding(record.encoding)
    with np.errstate(all="ignore"):  # NaN counts as implausible
        if kind == "topk":
            return _topk_plausible(stored, columns)
        logits_NC = decode(stored, record.encoding, record.identity.classes)
        largest_N = np.maximum(logits_NC.max(axis=1), -logits_NC.min(axis=1))
        if kind == "int8":
            d_N = stored["logits_affine"][:, 0].astype(np.float64) / 2 + largest_N * 1e-6
        else:
            d_N = rounding_float16(largest_N)
        d_N = d_N + _earlier_rounding(record, logits_NC, largest_N)
        return confidence_agrees(logits_NC, columns, d_N)


def _earlier_rounding(
    record: TeacherRecord, logits_NC: np.ndarray, largest_N: np.ndarray
) -> np.ndarray:
    """Largest errors of the encodings of the caches that this one was encoded from, fp64 [N]."""
    d_N = np.zeros(len(logits_NC))
    for encoding in record.encoded_from or ():
        if encoding == "int8":
            d_N += np.ptp(logits_NC, axis=1).astype(np.float64) / _INT8_HALF_STEPS
            d_N += largest_N * 1e-6
        else:
            d_N += rounding_float16(largest_N)
    return d_N


def _topk_plausible(
    stored: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]
) -> np.ndarray:
    best_N = stored["logits"][:, 0]
    logp_N = np.log(columns["top1_probability"].astype(np.float64))
    expected_N = best_N.astype(np.float64) - columns["log_z"]
    right_N: np.ndarray = stored["logits_ids"][:, 0] == columns["top1_class"]
    right_N &= np.abs(logp_N - expected_N) <= rounding_float16(best_N) + _slack(columns)
    return right_N


def confidence_agrees(
    logits_NC: np.ndarray, columns: Mapping[str, np.ndarray], d_N: np.ndarray
) -> np.ndarray:
    """bool [N]: every column agrees with fp32 logits that are off by at most ``d_N``.

    If every logit is off by at most d, log_z is off by at most d, and log probabilities by 2d.
    NaN never agrees.
    """
    slack_N = _slack(columns)
    logp_N = np.log(columns["top1_probability"].astype(np.float64))
    recomputed = _confidence_fp32(logits_NC)
    class_N1 = columns["top1_class"][:, None].clip(0, logits_NC.shape[1] - 1)
    top_N = np.take_along_axis(logits_NC, class_N1, axis=1)[:, 0]
    # First order: |dH| <= d * sum p |log p + H| <= 2 d H; doubled for the higher orders.
    entropy_d_N = 4 * d_N * (recomputed.entropy_nats + 1) * np.exp(2 * d_N) + 1e-3 + slack_N
    right_N: np.ndarray = np.abs(recomputed.log_z - columns["log_z"]) <= d_N + slack_N
    right_N &= np.abs(logp_N - np.log(recomputed.top1_probability)) <= 2 * d_N + slack_N
    right_N &= class_N1[:, 0] == columns["top1_class"]
    right_N &= top_N >= logits_NC.max(axis=1) - 2 * d_N - slack_N
    right_N &= np.abs(recomputed.entropy_nats - columns["entropy_nats"]) <= entropy_d_N
    right_N &= np.abs(recomputed.margin - columns["margin"]) <= 4 * d_N * np.exp(2 * d_N) + slack_N
    return right_N


def _confidence_fp32(logits_NC: np.ndarray) -> Confidence:
    """As ``confidence_of``, in fp32 and ten times as fast; the errors are far below ``_SLACK``."""
    row_N, top1_N = np.arange(len(logits_NC)), logits_NC.argmax(axis=1)
    peak_N = logits_NC[row_N, top1_N]
    below_NC = logits_NC - peak_N[:, None]
    exp_NC = np.exp(below_NC)
    z_N = exp_NC.sum(axis=1)
    mean_N = np.einsum("nc,nc->n", exp_NC, below_NC) / z_N
    exp_NC[row_N, top1_N] = 0
    second_N = exp_NC.max(axis=1)
    return Confidence(
        entropy_nats=np.maximum(np.log(z_N) - mean_N, 0),
        top1_class=top1_N.astype(np.int32),
        top1_probability=1 / z_N,
        margin=(1 - second_N) / z_N,
        log_z=np.log(z_N) + peak_N,
    )


def _slack(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    slack_N: np.ndarray = _SLACK + 1e-6 * np.abs(columns["log_z"].astype(np.float64))
    return slack_N


def rounding_float16(values: np.ndarray) -> np.ndarray:
    """Largest error of storing ``values`` as float16, fp64."""
    bound: np.ndarray = np.abs(values.astype(np.float64)) * _FLOAT16_STEP + _FLOAT16_TINY
    return bound
