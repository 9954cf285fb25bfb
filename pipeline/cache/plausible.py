"""Checks whether the confidence of rows can come from targets that are stored as these are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from distinit.pipeline.cache.digest import StoredRows
from distinit.pipeline.cache.encoding import decode
from distinit.schemas.teacher import TeacherRecord, parse_encoding

__all__ = ["confidence_agrees", "first_implausible", "rounding_float16"]

_BLOCK_VALUES = 1 << 17  # fp32 blocks of this size stay in the cache of a core
_TOPK_ROWS = 4_096
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
    with np.errstate(all="ignore"):  # NaN counts as implausible
        if parse_encoding(record.encoding)[0] == "topk":
            right_N = _topk_plausible(arrays, used_N, columns)
        else:
            found, d_N = _recompute(record, arrays, used_N, columns["top1_class"])
            right_N = _agrees(found, columns, d_N)
    wrong_N = ~right_N & ~unanswered_N
    return int(wrong_N.argmax()) if wrong_N.any() else None


@dataclass(frozen=True, slots=True)
class _RowValues:
    """What the confidence of each row is checked against, each [N]."""

    entropy_nats: np.ndarray
    top1_probability: np.ndarray
    margin: np.ndarray
    log_z: np.ndarray
    highest: np.ndarray  # logits
    lowest: np.ndarray
    of_class: np.ndarray  # the logit of the class that the table names

    @classmethod
    def joined(cls, parts: Sequence[_RowValues]) -> _RowValues:
        """The rows of all parts."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _recompute(
    record: TeacherRecord, arrays: Mapping[str, StoredRows], used_N: np.ndarray, class_N: np.ndarray
) -> tuple[_RowValues, np.ndarray]:
    """The values of all rows from what is stored, and the largest error of a logit, fp64 [N]."""
    classes, parts, errors = record.identity.classes, [], [np.zeros(0)]
    step = max(_BLOCK_VALUES // classes, 1)
    for start in range(0, len(used_N), step):
        part = slice(start, start + step)
        stored = {name: values[used_N[part]] for name, values in arrays.items()}
        parts.append(_row_values(decode(stored, record.encoding, classes), class_N[part]))
        if "logits_affine" in stored:
            errors.append(stored["logits_affine"][:, 0].astype(np.float64) / 2)
    empty = _row_values(np.zeros((0, classes), np.float32), np.zeros(0, np.int32))
    found = _RowValues.joined(parts or [empty])
    largest_N = np.maximum(found.highest, -found.lowest)
    if "logits_affine" in arrays:
        d_N = np.concatenate(errors) + largest_N * 1e-6
    else:
        d_N = rounding_float16(largest_N)
    return found, d_N + _earlier_rounding(record, found, largest_N)


def _earlier_rounding(
    record: TeacherRecord, found: _RowValues, largest_N: np.ndarray
) -> np.ndarray:
    """Largest errors of the encodings of the caches that this one was encoded from, fp64 [N]."""
    d_N = np.zeros(len(largest_N))
    for encoding in record.encoded_from or ():
        if encoding == "int8":
            d_N += (found.highest - found.lowest).astype(np.float64) / _INT8_HALF_STEPS
            d_N += largest_N * 1e-6
        else:
            d_N += rounding_float16(largest_N)
    return d_N


def _topk_plausible(
    arrays: Mapping[str, StoredRows], used_N: np.ndarray, columns: Mapping[str, np.ndarray]
) -> np.ndarray:
    best_N, id_N = (
        np.concatenate(
            [rows[used_N[i : i + _TOPK_ROWS]][:, 0] for i in range(0, len(used_N), _TOPK_ROWS)]
            or [np.zeros(0, rows.dtype)]
        )
        for rows in (arrays["logits"], arrays["logits_ids"])
    )
    logp_N = np.log(columns["top1_probability"].astype(np.float64))
    expected_N = best_N.astype(np.float64) - columns["log_z"]
    right_N: np.ndarray = id_N == columns["top1_class"]
    right_N &= np.abs(logp_N - expected_N) <= rounding_float16(best_N) + _slack(columns)
    return right_N


def confidence_agrees(
    logits_NC: np.ndarray, columns: Mapping[str, np.ndarray], d_N: np.ndarray
) -> np.ndarray:
    """bool [N]: every column agrees with fp32 logits that are off by at most ``d_N``.

    NaN never agrees.
    """
    return _agrees(_row_values(logits_NC, columns["top1_class"]), columns, d_N)


def _agrees(found: _RowValues, columns: Mapping[str, np.ndarray], d_N: np.ndarray) -> np.ndarray:
    """If every logit is off by at most d, log_z is off by at most d, log probabilities by 2d."""
    slack_N = _slack(columns)
    logp_N = np.log(columns["top1_probability"].astype(np.float64))
    # First order: |dH| <= d * sum p |log p + H| <= 2 d H; doubled for the higher orders.
    entropy_d_N = 4 * d_N * (found.entropy_nats + 1) * np.exp(2 * d_N) + 1e-3 + slack_N
    right_N: np.ndarray = np.abs(found.log_z - columns["log_z"]) <= d_N + slack_N
    right_N &= np.abs(logp_N - np.log(found.top1_probability)) <= 2 * d_N + slack_N
    right_N &= found.of_class >= found.highest - 2 * d_N - slack_N  # false for no such class
    right_N &= np.abs(found.entropy_nats - columns["entropy_nats"]) <= entropy_d_N
    right_N &= np.abs(found.margin - columns["margin"]) <= 4 * d_N * np.exp(2 * d_N) + slack_N
    return right_N


def _row_values(logits_NC: np.ndarray, class_N: np.ndarray) -> _RowValues:
    """In fp32, ten times as fast as ``confidence_of``; the errors are far below ``_SLACK``."""
    row_N, top1_N = np.arange(len(logits_NC)), logits_NC.argmax(axis=1)
    known_N = class_N.clip(0, logits_NC.shape[1] - 1)
    of_class_N = np.where(known_N == class_N, logits_NC[row_N, known_N], np.float32(np.nan))
    highest_N = logits_NC[row_N, top1_N]
    below_NC = logits_NC - highest_N[:, None]
    exp_NC = np.exp(below_NC)
    z_N = exp_NC.sum(axis=1)
    mean_N = np.einsum("nc,nc->n", exp_NC, below_NC) / z_N
    exp_NC[row_N, top1_N] = 0
    return _RowValues(
        entropy_nats=np.maximum(np.log(z_N) - mean_N, 0),
        top1_probability=1 / z_N,
        margin=(1 - exp_NC.max(axis=1)) / z_N,
        log_z=np.log(z_N) + highest_N,
        highest=highest_N,
        lowest=logits_NC.min(axis=1),
        of_class=of_class_N,
    )


def _slack(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    slack_N: np.ndarray = _SLACK + 1e-6 * np.abs(columns["log_z"].astype(np.float64))
    return slack_N


def rounding_float16(values: np.ndarray) -> np.ndarray:
    """Largest error of storing ``values`` as float16, fp64."""
    bound: np.ndarray = np.abs(values.astype(np.float64)) * _FLOAT16_STEP + _FLOAT16_TINY
    return bound
