"""Reads and writes safetensors files. Headers are checked before any tensor is loaded.

The files may come from others. A safetensors file begins with the length of its JSON header, in 8
bytes. The header gives the type and shape of every tensor, and its byte range in the rest of the
file.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distinit.pipeline.records import parse_json
from distinit.pipeline.storage import open_for_writing, open_regular

__all__ = [
    "TensorShape",
    "differences",
    "read_metadata",
    "read_shapes",
    "read_tensors",
    "write_tensors",
]

_MAX_HEADER_BYTES = 8 << 20  # 40,000 tensors; the largest student has about 1,000
_MAX_NAME = 500
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_PROBLEMS_SHOWN = 3
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # in the messages of safetensors


@dataclass(frozen=True, slots=True)
class TensorShape:
    """Type and shape of a tensor, as listed in a header."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> TensorShape:
        """Type and shape of a tensor in memory."""
        return cls(tensor.dtype, tuple(tensor.shape))


def read_shapes(path: Path) -> dict[str, TensorShape]:
    """Type and shape of every tensor of a safetensors file; no tensor is read.

    Raises OSError, and ValueError if the header is too long or malformed, or does not match the
    bytes that follow it.
    """
    header, data_bytes = _read_header(path)
    header.pop("__metadata__", None)
    ranges = sorted(_byte_range(name, entry) for name, entry in header.items())
    position = 0
    for first, end in ranges:
        if first != position:
            raise ValueError("the tensors overlap or leave gaps")
        position = end
    if position != data_bytes:
        raise ValueError(f"{data_bytes:,} bytes of tensors, {position:,} in the header")
    return {
        name: TensorShape(_TYPES[entry["dtype"]], tuple(entry["shape"]))
        for name, entry in header.items()
    }


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that the header of a safetensors file has beside its tensors.

    Raises OSError, and ValueError for a malformed header.
    """
    header, _ = _read_header(path)
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("the metadata of the header are not texts")
    return metadata


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """(the header, number of bytes behind it)."""
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
        header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    return header, size - 8 - length


def _byte_range(name: str, entry: Any) -> tuple[int, int]:
    """First byte and end of a tensor, checked against its type and shape."""
    if len(name) > _MAX_NAME or not isinstance(entry, dict):
        raise ValueError("the header has an entry that does not describe a tensor")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _TYPES:
        raise ValueError(
            f"{name} has the type {str(dtype)[:20]}, which is not one of {', '.join(_TYPES)}"
        )
    if not _are_counts(shape) or not _are_counts(offsets) or len(shape) > 8 or len(offsets) != 2:
        raise ValueError(f"{name} has no valid shape or data_offsets")
    if offsets[1] - offsets[0] != math.prod(shape) * _TYPES[dtype].itemsize:
        raise ValueError(f"{name} has a number of bytes that does not match its shape")
    return offsets[0], offsets[1]


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def read_tensors(path: Path, names: Iterable[str], *, finite: bool = True) -> dict[str, Tensor]:
    """The tensors called ``names``, of a file that ``read_shapes`` accepts.

    Raises OSError, and with ``finite`` ValueError for NaN and infinity.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    for name, tensor in tensors.items():
        if finite and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds values that are not finite")
    return tensors


def write_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file with the usual permissions of a new file.

    ``metadata``: texts for its header. safetensors itself would make it unreadable for other
    users. Raises OSError, also for a full disk, and StorageError.
    """
    descriptor = open_for_writing(path)
    permissions = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    try:
        save_file(tensors, path, metadata={"format": "pt", **(metadata or {})})
    except SafetensorError as error:
        if (code := _OS_ERROR.search(str(error))) is None:
            raise
        number = int(code[1])
        raise OSError(number, os.strerror(number), str(path)) from error
    path.chmod(permissions)


def differences(expected: Mapping[str, TensorShape], found: Mapping[str, TensorShape]) -> str:
    """How ``found`` differs from ``expected``, as text; empty if it can be loaded in its place.

    Floating-point types may differ in width; other types must be equal.
    """
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    for name, ours in expected.items():
        theirs = found.get(name, ours)
        if theirs.shape != ours.shape:
            problems.append(f"{name} has shape {theirs.shape}, not {ours.shape}")
        elif theirs.dtype != ours.dtype and not _both_float(theirs.dtype, ours.dtype):
            problems.append(f"{name} has type {theirs.dtype}, not {ours.dtype}")
    more = (
        f", and {len(problems) - _PROBLEMS_SHOWN} more" if len(problems) > _PROBLEMS_SHOWN else ""
    )
    return "; ".join(problems[:_PROBLEMS_SHOWN]) + more


def _both_float(one: torch.dtype, other: torch.dtype) -> bool:
    return one.is_floating_point and other.is_floating_point
