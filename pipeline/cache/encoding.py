"""Encodings of targets: from fp32 to what is stored, and back.

``float16``  ``logits`` f16 [N, C].
``int8``     ``logits`` i8 [N, C] and ``logits_affine`` f32 [N, 2]: value = scale * q + zero.
             Where that lowers the KL, the least likely classes are raised to the lowest level.
``topk:K``   ``logits`` f16 [N, K] and ``logits_ids`` u16 or i32 [N, K], largest first. The
             probability that the other classes share follows from log_z of the confidence table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from distinit.pipeline.cache.confidence import fidelity_of
from distinit.schemas.errors import CacheCorruptError, ConfigError, TeacherError
from distinit.schemas.teacher import TeacherIdentity, parse_encoding

__all__ = [
    "ArraySpec",
    "EncodedRows",
    "array_specs",
    "check_encoding",
    "decode",
    "encode",
    "first_unstorable",
]

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_INT8_MAX = float(np.finfo(np.float32).max) / 4  # the range of a row must fit into an fp32 too
_INT8_LEVELS = 255
_WIDE_NATS = 12.0  # rows of a smaller range lose less than _FINE_KL_NATS in int8
_FINE_KL_NATS = 1e-4
# Fractions of the range of a wide row that int8 may keep.
_KEPT_FRACTIONS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6)
_FLOAT16_EXPONENT = np.int16(0x7C00)
_FLOAT32_KEPT = np.int32(-0x70002000)  # the sign, and the bits that come from a float16
_EXPONENT_SHIFT = np.float32(2.0**112)  # the exponents are biased by 127 instead of 15
_CHUNK_ROWS = 256  # bounds the memory of fp64 temporaries


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One stored array with ``width`` values per row."""

    name: str
    width: int
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Encoded arrays by name, all with the same number of rows."""

    arrays: Mapping[str, np.ndarray]


def array_specs(encoding: str, classes: int) -> tuple[ArraySpec, ...]:
    """The arrays that this encoding stores for targets of ``classes`` values."""
    kind, k = parse_encoding(encoding)
    if kind == "float16":
        return (ArraySpec("logits", classes, np.dtype("<f2")),)
    if kind == "int8":
        return (
            ArraySpec("logits", classes, np.dtype("i1")),
            ArraySpec("logits_affine", 2, np.dtype("<f4")),
        )
    # Class ids are stored as integers: above 2048 fp16 cannot tell neighbouring ids apart.
    ids = np.dtype("<u2") if classes <= 1 << 16 else np.dtype("<i4")
    return (ArraySpec("logits", k, np.dtype("<f2")), ArraySpec("logits_ids", k, ids))


def check_encoding(identity: TeacherIdentity, encoding: str) -> None:
    """Raise ConfigError for top-k of features, and for a K that keeps every class."""
    kind, k = parse_encoding(encoding)
    if kind != "topk":
        return
    if identity.target == "features":
        raise ConfigError(
            "features have no top classes",
            expected="encoding float16 or int8",
            found=encoding,
            remedy="choose another encoding for this teacher",
        )
    if k >= identity.classes:
        raise ConfigError(
            "top-k keeps every class",
            expected=f"K below {identity.classes}",
            found=encoding,
            remedy="use float16, which is smaller and loses less",
        )


def first_unstorable(targets_NC: np.ndarray, encoding: str) -> tuple[int, str] | None:
    """The first row of fp32 targets that this encoding cannot store, and the reason.

    None if all rows can be stored. Reasons: "NaN", "infinity" or "a value too large for float16".
    """
    kind, k = parse_encoding(encoding)
    limit = _INT8_MAX if kind == "int8" else _FLOAT16_MAX
    if np.abs(targets_NC).max(initial=0.0) <= limit:  # false for NaN
        return None
    for row, values_C in enumerate(targets_NC):
        if np.isnan(values_C).any():
            return row, "NaN"
        if np.isinf(values_C).any():
            return row, "infinity"
        stored = np.partition(values_C, -k)[-k:] if kind == "topk" else values_C
        if np.abs(stored).max(initial=0.0) > limit:
            return row, f"a value too large for {'float16' if kind == 'topk' else kind}"
    return None


def encode(logits_NC: np.ndarray, encoding: str, target: str = "logits") -> EncodedRows:
    """Encode fp32 targets [N, C]. ``target`` is ``logits``, or ``features`` without a softmax.

    Raises:
        TeacherError: A value is not finite, or too large for the encoding.
    """
    if found := first_unstorable(logits_NC, encoding):
        row, reason = found
        raise TeacherError(
            f"the output of a teacher contains {reason}",
            expected=f"fp32 targets that {encoding} can store",
            found=f"{reason} in row {row} of {len(logits_NC)}",
            remedy="use precision fp32 or encoding int8, and check the weights of the teacher",
        )
    kind, k = parse_encoding(encoding)
    if kind == "float16":
        return EncodedRows({"logits": logits_NC.astype("<f2")})
    if kind == "int8":
        encoded = _encode_int8(logits_NC, 1.0)
        return _refine_int8(logits_NC, encoded) if target == "logits" else encoded
    return _encode_topk(logits_NC, k)


def decode(
    arrays: Mapping[str, np.ndarray],
    encoding: str,
    classes: int,
    log_z_N: np.ndarray | None = None,
) -> np.ndarray:
    """Decode stored rows to fp32 [N, C].

    Top-k needs ``log_z_N``: after a softmax the K classes have their exact probabilities, and the
    remaining probability is spread evenly over the other classes.
    """
    kind, _ = parse_encoding(encoding)
    if kind == "float16":
        return _from_float16(arrays["logits"])
    if kind == "int8":
        out_NC = arrays["logits"].astype(np.float32)
        out_NC *= arrays["logits_affine"][:, :1]
        out_NC += arrays["logits_affine"][:, 1:]
        return out_NC
    if log_z_N is None:
        raise ValueError("decoding top-k rows needs log_z_N")
    return _decode_topk(arrays["logits"], arrays["logits_ids"], classes, log_z_N)


def _refine_int8(logits_NC: np.ndarray, encoded: EncodedRows) -> EncodedRows:
    """In rows of a wide range, clip the lowest logits where the finer steps lower the KL."""
    classes = logits_NC.shape[1]

    def kl_nats(rows: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        return fidelity_of(logits_NC[rows], decode(arrays, "int8", classes)).kl_nats

    def pick(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[rows] for name, values in encoded.arrays.items()}

    wide = np.flatnonzero(np.ptp(logits_NC, axis=1) > _WIDE_NATS)
    coarse_M = wide[kl_nats(wide, pick(wide)) > _FINE_KL_NATS]
    best, best_M = pick(coarse_M), kl_nats(coarse_M, pick(coarse_M))
    for fraction in _KEPT_FRACTIONS:
        tried = _encode_int8(logits_NC[coarse_M], fraction).arrays
        kl_M = kl_nats(coarse_M, tried)
        better = kl_M < best_M
        best_M[better] = kl_M[better]
        for name, values in best.items():
            values[better] = tried[name][better]
    for name, values in encoded.arrays.items():
        values[coarse_M] = best[name]
    return encoded


def _encode_int8(logits_NC: np.ndarray, kept_fraction: float) -> EncodedRows:
    """Affine codes for the upper ``kept_fraction`` of each row's range; lower values are raised."""
    high_N1 = logits_NC.max(axis=1, keepdims=True).astype(np.float64)
    low_N1 = high_N1 - kept_fraction * (high_N1 - logits_NC.min(axis=1, keepdims=True))
    scale_N1 = ((high_N1 - low_N1) / _INT8_LEVELS).astype(np.float32)
    zero_N1 = (low_N1 + 128.0 * scale_N1).astype(np.float32)
    # Round with the fp32 scale and zero that the reader will use.
    divisor_N1 = np.where(scale_N1 > 0, scale_N1, np.float32(1))
    q_NC = np.empty(logits_NC.shape, np.int8)
    for start in range(0, len(logits_NC), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        steps = (logits_NC[part].astype(np.float64) - zero_N1[part]) / divisor_N1[part]
        q_NC[part] = np.rint(steps).clip(-128, 127)
    affine_N2 = np.concatenate([scale_N1, zero_N1], axis=1).astype("<f4")
    return EncodedRows({"logits": q_NC, "logits_affine": affine_N2})


def _encode_topk(logits_NC: np.ndarray, k: int) -> EncodedRows:
    # A stable sort: among equal logits the lower class id comes first, on every machine.
    ids_NK = np.argsort(-logits_NC, axis=1, kind="stable")[:, :k]
    top_NK = np.take_along_axis(logits_NC, ids_NK, axis=1)
    dtype = array_specs(f"topk:{k}", logits_NC.shape[1])[1].dtype
    return EncodedRows({"logits": top_NK.astype("<f2"), "logits_ids": ids_NK.astype(dtype)})


def _from_float16(values: np.ndarray) -> np.ndarray:
    """``values.astype(np.float32)``, several times as fast: numpy converts them one by one."""
    codes = np.ascontiguousarray(values).view("<i2")
    if (codes & _FLOAT16_EXPONENT).max(initial=0) == _FLOAT16_EXPONENT:  # NaN or infinity
        return values.astype(np.float32)
    bits = codes.astype(np.int32)
    bits <<= 13  # the mantissa of an fp32 has 13 bits more
    bits &= _FLOAT32_KEPT
    out = bits.view(np.float32)
    out *= _EXPONENT_SHIFT
    return out


def _decode_topk(
    top_NK: np.ndarray, ids_NK: np.ndarray, classes: int, log_z_N: np.ndarray
) -> np.ndarray:
    if ids_NK.size and not (int(ids_NK.min()) >= 0 and int(ids_NK.max()) < classes):
        raise CacheCorruptError(
            "a stored class id is out of range",
            expected=f"0 .. {classes - 1}",
            found=int(ids_NK.max()),
            remedy="run `distinit cache verify` on this cache",
        )
    top_NK = _from_float16(top_NK)
    z_N = log_z_N.astype(np.float64)
    kept_N = np.exp(top_NK.astype(np.float64) - z_N[:, None]).sum(axis=1)
    # fp16 rounding may leave zero or less: then the other classes get a negligible probability.
    rest_N = np.maximum(1.0 - kept_N, 1e-9) / (classes - ids_NK.shape[1])
    out_NC = np.empty((len(top_NK), classes), np.float32)
    out_NC[:] = (z_N + np.log(rest_N)).astype(np.float32)[:, None]
    np.put_along_axis(out_NC, ids_NK.astype(np.int64), top_NK, axis=1)
    return out_NC
