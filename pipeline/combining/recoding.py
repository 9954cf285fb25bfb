"""Encodes stored targets again, by the code of an extraction, and measures what that changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from distinit.pipeline.cache.confidence import fidelity_of
from distinit.pipeline.cache.encoding import check_encoding, decode, encode
from distinit.pipeline.cache.feature_fidelity import feature_fidelity_of
from distinit.pipeline.cache.target_rows import TargetRows
from distinit.schemas.cache_format import CACHE_FORMAT_MINOR
from distinit.schemas.errors import CacheError, ConfigError, TeacherError
from distinit.schemas.teacher import TeacherRecord, parse_encoding

__all__ = ["check_recoding", "recoded", "recoded_record"]


def check_recoding(record: TeacherRecord, encoding: str) -> None:
    """Raise ConfigError if the targets of a teacher cannot be encoded again as ``encoding``."""
    check_encoding(record.identity, encoding)
    history = (*(record.encoded_from or ()), record.encoding)
    before, after = parse_encoding(record.encoding)[0], parse_encoding(encoding)[0]
    if before == "topk":
        raise ConfigError(
            f"{record.encoding} of teacher {record.id} cannot be encoded again",
            expected="a cache in float16 or int8",
            found="the logits of the other classes, which top-k does not store",
            remedy="start from the cache that this one was made from, or extract again",
        )
    if after == "topk" and "int8" in history:
        raise ConfigError(
            f"int8 of teacher {record.id} cannot become {encoding}",
            expected="a cache in float16",
            found="logits rounded to 255 levels: the probabilities of the top classes and of all "
            "others would no longer belong together",
            remedy="start from the float16 cache, or extract again",
        )


def recoded_record(record: TeacherRecord, encoding: str) -> TeacherRecord:
    """The record of the teacher in the derived cache; the same one if nothing is encoded again."""
    if encoding == record.encoding:
        return record
    history = (*(record.encoded_from or ()), record.encoding)
    added = {"encoded_from": history, "format_minor": CACHE_FORMAT_MINOR}
    return record.model_copy(update={"encoding": encoding, **added})


def recoded(rows: TargetRows, before: TeacherRecord, after: TeacherRecord) -> TargetRows:
    """``rows`` in the encoding of ``after``; confidence stays that of the fp32 logits.

    Fidelity is measured against the stored values. Raises CacheError for values that the encoding
    cannot store.
    """
    classes, log_z_N = before.identity.classes, rows.confidence.get("log_z")
    values_NC = decode(rows.arrays, before.encoding, classes, log_z_N)
    try:
        arrays = encode(values_NC, after.encoding, after.identity.target).arrays
    except TeacherError as error:
        raise CacheError(
            f"targets of teacher {before.id} cannot be stored as {after.encoding}",
            expected=error.expected,
            found=error.found,
            remedy="choose another encoding",
        ) from error
    if after.identity.target == "features":
        stored_NC = decode(arrays, after.encoding, classes)
        return TargetRows(arrays, {}, None, feature_fidelity_of(values_NC, stored_NC))
    if "logits_ids" in arrays:
        arrays = _with_top1_first(arrays, values_NC, rows.confidence["top1_class"])
    fidelity = fidelity_of(values_NC, decode(arrays, after.encoding, classes, log_z_N))
    # Filters use the entropies of the confidence table, which are copied.
    copied_N = rows.confidence["entropy_nats"].astype(np.float64)
    return TargetRows(arrays, rows.confidence, replace(fidelity, entropy_nats=copied_N))


def _with_top1_first(
    arrays: Mapping[str, np.ndarray], values_NC: np.ndarray, top1_N: np.ndarray
) -> dict[str, np.ndarray]:
    """Rounding may have made several classes equal: the best one in fp32 stays the first."""
    top_NK, ids_NK = arrays["logits"].copy(), arrays["logits_ids"].copy()
    best_N = np.take_along_axis(values_NC, top1_N[:, None].astype(np.int64), axis=1)[:, 0]
    for row in np.flatnonzero((ids_NK[:, 0] != top1_N) & (best_N == values_NC.max(axis=1))):
        others = ids_NK[row][ids_NK[row] != top1_N[row]]
        ids_NK[row, 1:] = others[: len(ids_NK[row]) - 1]
        ids_NK[row, 0] = top1_N[row]
        top_NK[row] = values_NC[row, ids_NK[row].astype(np.int64)]
    return {"logits": top_NK, "logits_ids": ids_NK}
