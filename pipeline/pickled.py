"""Reads torch.save files from others: checks their size first, and never executes code."""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import torch
from torch import Tensor
from torch.types import Storage

from distinit.pipeline.pickle_scan import MAX_PICKLE_BYTES, CodeInPickleError, PickleScan
from distinit.pipeline.storage import open_regular

__all__ = ["CodeInPickleError", "max_file_bytes", "read_pickled", "tensor_problem"]

_ZIP_MAGIC = b"PK\x03\x04"  # torch.load uses it to distinguish its two formats
_MAX_ENTRIES = 200_000
_PICKLES_BEFORE_1_6 = 5  # magic number, version, system, object, storage keys
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_DTYPES = frozenset(
    {
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    }
)


def max_file_bytes() -> int:
    """Size of the largest tensor file that is read: the memory of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_pickled(path: Path) -> object:
    """Contents of a torch.save file: tensors and plain values in plain containers, on the CPU.

    An archive must be uncompressed, as torch.save writes it, so that no more is read than the
    file holds. Raises OSError, CodeInPickleError, and ValueError for any other file that
    torch.save does not write.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_file_bytes():
            raise ValueError(f"{size:,} bytes, more than the memory of this machine")
        try:
            _check(file, size)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about sparse, quantised and scripted tensors
                return torch.load(file, map_location=_on_the_cpu(size), weights_only=True)
        except (CodeInPickleError, OSError):
            raise
        except Exception as error:
            # torch.load and pickletools raise undocumented exceptions.
            raise _load_error(error) from error


def _check(file: IO[bytes], size: int) -> None:
    scan = PickleScan()
    if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
        file.seek(0)
        pickles = io.BytesIO(file.read(MAX_PICKLE_BYTES))  # the tensors follow them
        for _ in range(_PICKLES_BEFORE_1_6):
            scan.check(pickles)
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("a compressed archive, which torch.save does not write")
        if len(entries) > _MAX_ENTRIES or sum(entry.file_size for entry in entries) > size:
            raise ValueError("an archive whose entries are larger than the file")
        for entry in entries:
            if entry.filename.endswith("/data.pkl"):
                if entry.file_size > MAX_PICKLE_BYTES:
                    raise ValueError(f"{entry.file_size:,} bytes in addition to the tensors")
                with archive.open(entry) as pickled:
                    scan.check(pickled)


def _on_the_cpu(
    size: int,
) -> Callable[[Storage, str], Storage]:
    """A ``map_location`` for a file of ``size`` bytes, which holds all values of its tensors.

    The format before torch 1.6 states the sizes of tensors before their values: memory is reserved
    for them, but not used until the values are read.
    """
    total_bytes = 0

    def place(storage: Storage, _: str) -> Storage:
        nonlocal total_bytes
        total_bytes += storage.nbytes()
        if total_bytes > size:
            raise ValueError("its tensors are larger than the file")
        return storage

    return place


def _load_error(error: Exception) -> ValueError:
    text = str(error)
    if found := _GLOBAL.search(text):
        return CodeInPickleError(f"it refers to {found[1][:100]}")
    if isinstance(error, MemoryError | RecursionError):
        return ValueError("it needs more memory than a state dict")
    if "Weights only load failed" in text:  # the rest explains how to run the code anyway
        return ValueError("it is not a torch.save file")
    return ValueError((text.splitlines() or [type(error).__name__])[0][:200])


def tensor_problem(value: object) -> str:
    """Why ``value`` cannot be a weight of a network; empty if it is a plain tensor."""
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}, not a tensor"
    if value.is_quantized:
        return f"is quantised ({value.dtype})"
    if value.layout != torch.strided:
        return f"is sparse ({value.layout})"
    if value.device.type != "cpu":
        return f"has no values (device {value.device.type})"
    if value.dtype not in _DTYPES:
        return f"has the type {value.dtype}"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "repeats values instead of holding them"
    return ""
