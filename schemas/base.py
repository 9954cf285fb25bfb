"""The base of every configuration and on-disk JSON record, and their canonical form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

__all__ = [
    "ADDED_LATER",
    "DEPENDENT_DEFAULT",
    "MAX_ID_BYTES",
    "NOT_IDENTITY",
    "PLUGIN",
    "ExtensibleRecord",
    "Name",
    "Record",
    "SealedRecord",
    "Seed",
    "Sha256",
    "VideoId",
    "canonical_json",
    "differences",
    "fields_added_later",
    "fields_outside_identity",
    "flatten",
    "is_outside_identity",
    "sha256_of",
    "without_none",
    "without_zero_minor",
]

MAX_ID_BYTES = 64
"""Longest video id, in bytes. An index stores all ids at the length of the longest one."""

PLUGIN = "plugin:"
"""Names of teachers and students that begin with it are code of the user."""

SHA256_PATTERN = "^[0-9a-f]{64}$"
VIDEO_ID_PATTERN = rf"^[A-Za-z0-9._-]{{1,{MAX_ID_BYTES}}}$"

Sha256 = Annotated[str, StringConstraints(pattern=SHA256_PATTERN)]
"""A digest in hexadecimal. Any other value in a file is an error."""

VideoId = Annotated[str, StringConstraints(pattern=VIDEO_ID_PATTERN)]
"""The id of a video in tables and records: 16 hex digits of its sha256, and ``-N`` if needed."""

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""A seed of random numbers. Larger ones are refused by scikit-learn, and by torch from 2**64."""

Name = Annotated[str, StringConstraints(max_length=1_000)]
"""A name for people, such as that of a label space or an architecture."""


@dataclass(frozen=True, slots=True)
class NotIdentity:
    """Marks configuration fields that do not decide what a run computes, in ``Annotated``.

    They say where inputs are stored (their content counts by its digest), where results are
    written, or how the work is executed. A run may be resumed with other values.
    """


NOT_IDENTITY = NotIdentity()


@dataclass(frozen=True, slots=True)
class AddedLater:
    """Marks configuration fields whose default is what versions without them did.

    With its default, such a field does not count for the identity of a run, so runs of earlier
    versions can be resumed and reused.
    """


ADDED_LATER = AddedLater()


@dataclass(frozen=True, slots=True)
class DependentDefault:
    """Marks configuration fields whose default depends on other fields, in ``Annotated``.

    `distinit config` writes such a default as a comment, so that it follows those fields.
    """


DEPENDENT_DEFAULT = DependentDefault()


def fields_outside_identity(config: type[BaseModel]) -> frozenset[str]:
    """Dotted names of the fields of ``config`` that are marked with NOT_IDENTITY.

    Fields of the records of a list are named as in ``targets.*.vocabulary``.
    """
    names: set[str] = set()
    for name, field in config.model_fields.items():
        if NOT_IDENTITY in field.metadata:
            names.add(name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names.update(f"{name}.{inner}" for inner in fields_outside_identity(kind))
        for item in get_args(kind):
            if isinstance(item, type) and issubclass(item, BaseModel):
                names.update(f"{name}.*.{inner}" for inner in fields_outside_identity(item))
    return frozenset(names)


def is_outside_identity(name: str, outside: Collection[str]) -> bool:
    """Whether ``outside`` has the dotted ``name``; there ``*`` is any position in a list."""
    return ".".join("*" if part.isdigit() else part for part in name.split(".")) in outside


def fields_added_later(config: type[BaseModel]) -> dict[str, Any]:
    """Dotted name -> default, as in JSON, of the fields that are marked with ADDED_LATER."""
    defaults: dict[str, Any] = {}
    for name, field in config.model_fields.items():
        if ADDED_LATER in field.metadata:
            default = field.default
            defaults[name] = list(default) if isinstance(default, tuple) else default
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner = fields_added_later(kind)
            defaults |= {f"{name}.{key}": default for key, default in inner.items()}
    return defaults


class Record(BaseModel):
    """An immutable record. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def record_digest(self) -> str:
        """Hex sha256 of the canonical JSON of this record."""
        return sha256_of(self.model_dump(mode="json"))


class ExtensibleRecord(Record):
    """A record to which newer minor versions of its format may add keys.

    Unknown keys are ignored if ``format_minor`` is above ``newest_minor``; otherwise they are
    errors. A subclass leaves the key out of its JSON while it is 0 (``without_zero_minor``).
    """

    newest_minor: ClassVar[int] = 0
    """The newest minor version all of whose keys this program knows."""

    format_minor: int = Field(
        0,
        ge=0,
        description="minor version of the format: newer ones add keys and files, and change "
        "nothing else. 0: the key is left out",
    )

    @property
    def is_newer(self) -> bool:
        """Whether the record may have keys that this program does not know, and has ignored."""
        return self.format_minor > self.newest_minor


class SealedRecord(Record):
    """A record that contains its own digest, so that damage in any field is detected."""

    seal: Sha256 | Literal[""] = Field(
        "", description="sha256 of the canonical JSON of the other fields"
    )

    def sealed(self) -> Self:
        """The same record with its seal."""
        return self.model_copy(update={"seal": self._digest()})

    @property
    def is_intact(self) -> bool:
        """Whether the seal matches the other fields."""
        return self.seal == self._digest()

    def _digest(self) -> str:
        return sha256_of(self.model_dump(mode="json", exclude={"seal"}))


def without_none(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    """``fields`` without those of ``names`` that are None: keys that older files do not have."""
    return {k: value for k, value in fields.items() if value is not None or k not in names}


def without_zero_minor(fields: dict[str, Any]) -> dict[str, Any]:
    """``fields`` without ``format_minor`` if it is 0: files of the first minor version lack it."""
    return {k: value for k, value in fields.items() if k != "format_minor" or value}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and without spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256_of(value: Any) -> str:
    """Hex sha256 of ``canonical_json(value)``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of a dumped record; a list of plain values counts as one value."""
    if isinstance(value, dict):
        pairs = ((str(k), v) for k, v in value.items())
    elif isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        pairs = ((str(i), v) for i, v in enumerate(value))
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, child in pairs:
        flat |= flatten(child, f"{prefix}.{name}" if prefix else name)
    return flat


def differences(
    there: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    sides: tuple[str, str] = ("there", "now"),
) -> list[str]:
    """``name: A there, B now`` for each name whose values differ, for a message.

    ``sides``: other words for "there" and "now".
    """
    return [
        f"{name}: {there.get(name, 'absent')} {sides[0]}, {now.get(name, 'absent')} {sides[1]}"
        for name in sorted(there.keys() | now.keys())
        if there.get(name, "absent") != now.get(name, "absent")
    ]
