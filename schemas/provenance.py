"""Where a cache comes from, as its owner states it: the key ``provenance`` of its manifest."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

from distinit.schemas.base import NOT_IDENTITY, Record, without_none

__all__ = ["Provenance"]

_FIELDS = ("license", "source", "contact")

_LICENSES = frozenset(
    (
        "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause",
        "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0",
        "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
        "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0",
        "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "ecl-2.0", "epl-1.0",
        "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "gfdl", "gpl", "gpl-2.0", "gpl-3.0",
        "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl",
        "odc-by", "ofl-1.1", "osl-3.0", "pddl", "postgresql", "unknown", "unlicense", "wtfpl",
        "zlib",
    )
)  # fmt: skip
"""Identifiers of licenses that a Hugging Face card may have; "other" stands for any text."""

_URL = re.compile(r"https?://[^\s\"'<>]+")


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be one line of printable text, without blanks around it")
    return text


_Line = Annotated[
    str, StringConstraints(min_length=1, max_length=1_000), AfterValidator(_printable)
]


class Provenance(Record):
    """What only people know about a cache. Nothing of it decides what is stored."""

    license: Annotated[_Line | None, NOT_IDENTITY] = Field(
        None, description="license of the targets: an SPDX identifier (CC-BY-4.0), or any text"
    )
    source: Annotated[_Line | None, NOT_IDENTITY] = Field(
        None, description="where the videos come from: a name or a URL"
    )
    contact: Annotated[_Line | None, NOT_IDENTITY] = Field(
        None, description="who answers questions about the cache: a name, an address or a URL"
    )

    @model_serializer(mode="wrap")
    def _without_unstated(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(dump(self), *_FIELDS)

    @property
    def stated(self) -> dict[str, str]:
        """The fields that have a value, in order."""
        values = {name: getattr(self, name) for name in _FIELDS}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the others."""
        return tuple(name for name in _FIELDS if name not in self.stated)

    def over(self, earlier: Provenance | None) -> Provenance | None:
        """The earlier statements, with those of ``self`` in their place; None without any."""
        values = {} if earlier is None else earlier.stated
        values |= self.stated
        return Provenance.model_validate(values) if values else None

    def card_metadata(self) -> str:
        """Lines of the YAML block of a Hugging Face dataset card."""
        if self.license is None:
            return ""
        if (known := self.license.lower()) in _LICENSES:
            return f"license: {known}\n"
        name = json.dumps(self.license, ensure_ascii=False)  # JSON texts are YAML texts
        link = f"license_link: {name}\n" if _URL.fullmatch(self.license) else ""
        return f"license: other\nlicense_name: {name}\n{link}"

    def card_text(self) -> str:
        """A section of README.md."""
        lines = "\n".join(f"- {name}: {value}" for name, value in self.stated.items())
        return f"## Where it comes from\n\nAs its owner states it:\n\n{lines}\n\n"

    def croissant(self) -> dict[str, Any]:
        """Keys of croissant.json."""
        keys: dict[str, Any] = {}
        if self.license is not None:
            keys["license"] = self.license
        if self.source is not None and _URL.fullmatch(self.source):
            keys["url"] = self.source
        elif self.source is not None:
            keys["isBasedOn"] = self.source
        if self.contact is not None:
            kind = "url" if _URL.fullmatch(self.contact) else "name"
            keys["creator"] = {"@type": "sc:Organization", kind: self.contact}
        return keys
