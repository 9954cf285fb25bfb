"""Tensor files of others: what they hold is read and checked before any of it is loaded.

A safetensors file begins with 8 bytes that say how long its JSON header is; the header gives every
tensor's type, shape and place in the rest of the file.
"""

from __future__ import annotations

import math
import os
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

__all__ = ["TensorShape", "differences", "read_shapes", "read_tensors", "write_tensors"]

_MAX_HEADER_BYTES = 8 << 20  # 40,000 tensors; the largest student has some 1,000
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
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class TensorShape:
    """What the header says of one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> TensorShape:
        """That of a tensor in memory."""
        return cls(tensor.dtype, tuple(tensor.shape))


def read_shapes(path: Path) -> dict[str, TensorShape]:
    """Type and shape of every tensor of a safetensors file; no tensor is read.

    Raises OSError, and ValueError for a header that is too long, is no such header, or does not
    describe the bytes that follow it.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
        header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    header.pop("__metadata__", None)
    ends = sorted(_place(name, entry) for name, entry in header.items())
    at = 0
    for first, end in ends:
        if first != at:
            raise ValueError("the tensors overlap or leave gaps")
        at = end
    if at != size - 8 - length:
        raise ValueError(f"{size - 8 - length:,} bytes of tensors, {at:,} in the header")
    return {
        name: TensorShape(_TYPES[entry["dtype"]], tuple(entry["shape"]))
        for name, entry in header.items()
    }


def _place(name: str, entry: Any) -> tuple[int, int]:
    """First byte and end of a tensor, checked against its shape."""
    if len(name) > _MAX_NAME or not isinstance(entry, dict):
        raise ValueError("the header has an entry that describes no tensor")
    dtype, shape, place = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _TYPES:
        raise ValueError(f"{name} has the type {str(dtype)[:20]}, none of {', '.join(_TYPES)}")
    if not _are_counts(shape) or not _are_counts(place) or len(shape) > 8 or len(place) != 2:
        raise ValueError(f"{name} has no shape or no place")
    if place[1] - place[0] != math.prod(shape) * _TYPES[dtype].itemsize:
        raise ValueError(f"{name} has another number of bytes than its shape")
    return place[0], place[1]


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def read_tensors(path: Path, names: Iterable[str], *, finite: bool = True) -> dict[str, Tensor]:
    """Some tensors of a file that ``read_shapes`` accepts.

    Raises OSError, and ValueError for numbers that are not finite, unless they may be.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    for name, tensor in tensors.items():
        if finite and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds numbers that are not finite")
    return tensors


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file with the permissions that any new file gets; safetensors itself
    would let nobody else read it. Raises OSError, StorageError."""
    descriptor = open_for_writing(path)
    permissions = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(permissions)


def differences(wanted: Mapping[str, TensorShape], found: Mapping[str, TensorShape]) -> str:
    """What keeps ``found`` from taking the place of ``wanted``; empty if nothing does.

    Floating-point numbers may have another width; whole numbers and truth values may not stand
    for them, nor complex ones.
    """
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is not known" for name in found if name not in wanted]
    for name, ours in wanted.items():
        theirs = found.get(name, ours)
        if theirs.shape != ours.shape:
            problems.append(f"{name} has shape {theirs.shape}, not {ours.shape}")
        elif theirs.dtype != ours.dtype and not _both_float(theirs.dtype, ours.dtype):
            problems.append(f"{name} has type {theirs.dtype}, not {ours.dtype}")
    more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "; ".join(problems[:_SHOWN]) + more


def _both_float(one: torch.dtype, other: torch.dtype) -> bool:
    return one.is_floating_point and other.is_floating_point
