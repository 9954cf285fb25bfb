"""The base of every configuration and on-disk JSON record, and their canonical form."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Record", "canonical_json", "sha256_of"]


class Record(BaseModel):
    """Immutable, closed: an unknown key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def record_digest(self) -> str:
        """Hex sha256 of the canonical JSON of this record."""
        return sha256_of(self.model_dump(mode="json"))


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256_of(value: Any) -> str:
    """Hex sha256 of ``canonical_json(value)``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
