"""Checks the values that a user gives, and explains paths that the system refuses."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distinit.schemas.errors import ConfigError, DistInitError
from distinit.schemas.wording import shorten

__all__ = ["path_errors", "refuse_unusable_values"]

_MAX_INTEGER = 2**63 - 1  # of arrays and records
_MAX_FLOAT = 3.4e38  # of float32, in which networks compute


def refuse_unusable_values(values: Mapping[str, Any]) -> None:
    """Raise ConfigError for values that no key can have, in a mapping of any depth.

    These are empty texts (an empty path would be the current folder), texts that cannot be a path
    or part of a record, which is UTF-8, whole numbers beyond 64 bits, and finite ones
    beyond float32.
    """
    for name, value in _leaves("", values):
        problem, remedy = _problem(value)
        if problem:
            raise ConfigError(f"{shorten(name)}: its value {problem}", remedy=remedy)


def _problem(value: object) -> tuple[str, str]:
    """What is wrong with one value, and what to do; ("", "") if nothing is."""
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        return f"is a number of {len(str(abs(value)))} digits", "give a smaller number"
    if isinstance(value, float) and _MAX_FLOAT < abs(value) < math.inf:
        return "is beyond 32-bit floating point", "give a smaller number"
    if not isinstance(value, str | os.PathLike):
        return "", ""
    text = str(value)
    if not text:
        return "is empty", "give a value, or leave it out"
    if "\0" in text:
        return "contains a NUL character", "remove it"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return f"is not UTF-8 text: {shorten(text)}", "rename the file or folder"
    return "", ""


def _leaves(name: str, value: Any) -> Iterator[tuple[str, object]]:
    """The values in ``value`` that are no containers, and their names: ``targets.0.head``."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), part)
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _leaves(f"{name}.{number}", part)
    else:
        yield name, value


@contextmanager
def path_errors() -> Iterator[None]:
    """Turn an OSError into a DistInitError, for what the code that raised it has not checked.

    Such as names that are too long. A closed pipe passes: click ends quietly then.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno == errno.EPIPE:
            raise
        if error.filename is None:
            raise _system_error(error.errno) from error
        too_long = error.errno == errno.ENAMETOOLONG
        raise DistInitError(
            f"cannot use {shorten(os.fsdecode(error.filename))}",
            found=os.strerror(error.errno),  # libraries embellish strerror
            remedy="use a shorter path" if too_long else "check the path, or choose another one",
            named_input=too_long,
        ) from error


def _system_error(number: int) -> DistInitError:
    """The error for a refusal of the system that names no path."""
    if number == errno.ENOENT:  # only the current folder has no name
        return DistInitError(
            "the current folder no longer exists", remedy="change to a folder that exists"
        )
    remedies = {
        errno.EMFILE: "allow more open files: ulimit -n 4096",
        errno.ENOSPC: "make room where the output, or temporary files, are written",
    }
    return DistInitError(
        "the system refused an operation", found=os.strerror(number), remedy=remedies.get(number)
    )
