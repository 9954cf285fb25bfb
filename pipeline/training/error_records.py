"""Errors as JSON: how one process of a training tells another why it cannot go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distinit.schemas import errors
from distinit.schemas.errors import ComputeError, DistInitError

__all__ = ["error_from", "error_record"]


def error_record(error: DistInitError) -> dict[str, str | None]:
    """What ``error_from`` needs to raise ``error`` again."""
    return {
        "class": type(error).__name__,
        "problem": error.problem,
        "expected": None if error.expected is None else str(error.expected),
        "found": None if error.found is None else str(error.found),
        "remedy": error.remedy,
    }


def error_from(record: Mapping[str, Any]) -> DistInitError:
    """The error of a record; a ComputeError if its class is not known."""
    found = getattr(errors, str(record.get("class")), None)
    kind: type[DistInitError] = ComputeError
    if isinstance(found, type) and issubclass(found, DistInitError):
        kind = found
    return kind(
        str(record.get("problem")),
        expected=record.get("expected"),
        found=record.get("found"),
        remedy=record.get("remedy"),
    )
