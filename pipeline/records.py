"""Reads and writes JSON records: written atomically, checked strictly when they are read.

A record may come from an attacker: its size is checked before it is read, and content on which
JSON readers disagree (duplicate keys, NaN, lone surrogates, numbers beyond 64 bits) is refused.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import ValidationError

from distinit.pipeline.storage import atomic_write_bytes, read_bounded, sha256_file
from distinit.schemas.base import ExtensibleRecord, Record
from distinit.schemas.errors import DistInitError
from distinit.schemas.manifest import FileEntry
from distinit.schemas.wording import reason_of, shown

__all__ = [
    "MAX_RECORD_BYTES",
    "file_entry",
    "parse_json",
    "parse_record",
    "read_json",
    "read_record",
    "write_json",
    "write_record",
]

MAX_RECORD_BYTES = 64 << 20  # a commit record of 32,768 videos takes about 8 MB
_MAX_INTEGER = 2**63 - 1  # largest value of int64 columns and arrays


def write_record(record: Record, path: Path, *, indent: int = 2) -> None:
    """Write a record as readable JSON, atomically. Raises StorageError."""
    atomic_write_bytes(path, (record.model_dump_json(indent=indent) + "\n").encode())


def write_json(value: Mapping[str, Any], path: Path) -> None:
    """Write a JSON object that has no record class, atomically. Raises StorageError."""
    atomic_write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def file_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file, as records list them. Raises OSError."""
    return FileEntry(size=path.stat().st_size, sha256=sha256_file(path))


def read_record[R: Record](
    path: Path,
    kind: type[R],
    *,
    error: type[DistInitError],
    remedy: str,
    missing: str = "a record is missing",
    named_input: bool = False,
    limit_bytes: int = MAX_RECORD_BYTES,
) -> R:
    """Read and validate one record. Unknown keys of a newer minor version are ignored.

    Args:
        path: The file.
        kind: Class of the record.
        error: Class of the error that is raised if the file is missing, damaged, too large or not
            a regular file, or if it has another format or format version than ``kind``.
        remedy: What the user can do about it.
        missing: Message for a missing file, without its path.
        named_input: The user has named the folder of the record: without the record, it is not
            what it should be, and the error is one of usage.
        limit_bytes: Larger files are refused before they are read.
    """
    data, raw = _read(path, error, remedy, missing, limit_bytes, named_input)
    return _validated(data, raw, kind, path, error, remedy)


def parse_record[R: Record](
    data: bytes, kind: type[R], path: Path | str, *, error: type[DistInitError], remedy: str
) -> R:
    """As ``read_record``, from the bytes of the file; ``path`` is for messages."""
    return _validated(data, _object(data, path, error, remedy), kind, path, error, remedy)


def _validated[R: Record](
    data: bytes,
    raw: dict[str, Any],
    kind: type[R],
    path: Path | str,
    error: type[DistInitError],
    remedy: str,
) -> R:
    _check_version(raw, kind, path, error)
    try:
        extra: Literal["ignore"] | None = "ignore" if _is_newer(raw, kind) else None
        return kind.model_validate_json(data, strict=True, extra=extra)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        raise error(
            f"{path} is not a valid {kind.__name__}",
            expected=first["msg"],
            found=f"{'.'.join(map(str, first['loc']))} = {str(first['input'])[:80]}",
            remedy=remedy,
        ) from invalid


def read_json(
    path: Path,
    *,
    error: type[DistInitError],
    remedy: str,
    missing: str = "a record is missing",
    limit_bytes: int = MAX_RECORD_BYTES,
) -> dict[str, Any]:
    """Read one JSON object. Raises ``error`` as ``read_record`` does."""
    return _read(path, error, remedy, missing, limit_bytes, named_input=False)[1]


def _read(
    path: Path,
    error: type[DistInitError],
    remedy: str,
    missing: str,
    limit_bytes: int,
    named_input: bool,
) -> tuple[bytes, dict[str, Any]]:
    try:
        data = read_bounded(path, limit_bytes)
    except (FileNotFoundError, NotADirectoryError) as absent:
        raise error(
            f"{missing}: {path} does not exist", remedy=remedy, named_input=named_input
        ) from absent
    except OSError as unreadable:
        raise _unreadable(path, error, remedy, limit_bytes, unreadable) from unreadable
    return data, _object(data, path, error, remedy, limit_bytes)


def _object(
    data: bytes,
    path: Path | str,
    error: type[DistInitError],
    remedy: str,
    limit_bytes: int = MAX_RECORD_BYTES,
) -> dict[str, Any]:
    try:
        value = parse_json(data)
    except (ValueError, RecursionError) as unreadable:
        raise _unreadable(path, error, remedy, limit_bytes, unreadable) from unreadable
    if not isinstance(value, dict):
        found = type(value).__name__
        raise error(f"cannot read {path}", expected="a JSON object", found=found, remedy=remedy)
    return value


def _unreadable(
    path: Path | str,
    error: type[DistInitError],
    remedy: str,
    limit_bytes: int,
    cause: Exception,
) -> DistInitError:
    return error(
        f"cannot read {path}",
        expected=f"a JSON file of at most {limit_bytes:,} bytes",
        found=reason_of(cause),
        remedy=remedy,
    )


def parse_json(data: bytes) -> Any:
    """Parse JSON, and refuse what other readers may read differently.

    Raises ValueError, RecursionError.
    """
    text = data.decode("utf-8")
    value = json.loads(
        text,
        object_pairs_hook=_without_duplicates,
        parse_int=_integer,
        parse_float=_finite,
        parse_constant=_refuse_constant,
    )
    if "\\ud" in text or "\\uD" in text:  # only escapes can produce a lone surrogate
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError(f"the key {shown(_first_duplicate(pairs))} occurs twice in one object")
    return record


def _first_duplicate(pairs: Sequence[tuple[str, Any]]) -> str:
    counts = Counter(name for name, _ in pairs)
    return next(name for name, count in counts.items() if count > 1)


def _integer(digits: str) -> int:
    value = int(digits)
    if abs(value) > _MAX_INTEGER:
        raise ValueError(f"{digits[:40]} is beyond 64 bits")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is beyond 64 bits")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_newer(raw: dict[str, Any], kind: type[Record]) -> bool:
    """Whether the record states a newer minor version than this program knows."""
    minor = raw.get("format_minor")
    return issubclass(kind, ExtensibleRecord) and type(minor) is int and minor > kind.newest_minor


def _check_version(
    raw: dict[str, Any], kind: type[Record], path: Path | str, error: type[DistInitError]
) -> None:
    """Report a file of another version as such, and not as damaged: the remedy differs."""
    fields = kind.model_fields
    for name in ("format", "format_version"):
        if name in fields and name in raw and raw[name] != fields[name].default:
            raise error(
                f"{path} has a {name.replace('_', ' ')} that this program does not read",
                expected=fields[name].default,
                found=shown(raw[name]),
                remedy="create it again, or install the version of distinit that wrote it",
            )
