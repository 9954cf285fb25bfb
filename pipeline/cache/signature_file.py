"""Reads ``cache.sig``: a Sigstore bundle around an in-toto statement, as model-signing writes it.

Nothing here checks the signature itself; see ``signature``. Unknown keys are ignored, since others
define this format and add keys to it.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distinit.pipeline.records import MAX_RECORD_BYTES, parse_json
from distinit.pipeline.storage import read_bounded
from distinit.schemas.base import SHA256_PATTERN
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.wording import reason_of, shown

__all__ = ["SignatureFile", "read_signature"]

_FIXED = {
    ("mediaType",): "application/vnd.dev.sigstore.bundle.v0.3+json",
    ("dsseEnvelope", "payloadType"): "application/vnd.in-toto+json",
}
_FIXED_IN_STATEMENT = {
    ("_type",): "https://in-toto.io/Statement/v1",
    ("predicateType",): "https://model_signing/signature/v1.0",
    ("predicate", "serialization", "method"): "files",
    ("predicate", "serialization", "hash_type"): "sha256",
}
_MAX_NAME_CHARACTERS = 4_096


@dataclass(frozen=True, slots=True)
class SignatureFile:
    """What a signature file claims.

    Attributes:
        data: The bytes of the file.
        key_sha256: Digest of the public key (PEM text) that is said to verify the signature.
        sha256: Name -> digest of every file that is said to be signed.
    """

    data: bytes
    key_sha256: str
    sha256: dict[str, str]


def read_signature(path: Path, limit_bytes: int = MAX_RECORD_BYTES) -> SignatureFile:
    """Read a signature file without trusting it.

    Raises CacheCorruptError if it is larger than ``limit_bytes``, not a regular file, or not a
    signature over one sha256 per file; FileNotFoundError if there is none.
    """
    try:
        data = read_bounded(path, limit_bytes)
        bundle = parse_json(data)
        _require(bundle, _FIXED)
        if len(_at(bundle, list, "dsseEnvelope", "signatures")) != 1:
            raise ValueError("not exactly one signature")
        key_sha256 = _at(bundle, str, "verificationMaterial", "publicKey", "hint")
        payload = _at(bundle, str, "dsseEnvelope", "payload")
        statement = parse_json(base64.b64decode(payload, validate=True))
        _require(statement, _FIXED_IN_STATEMENT)
        files = _files(_at(statement, list, "predicate", "resources"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CacheCorruptError(
            f"{path} is not a signature of a cache",
            expected="a file that `distinit cache sign` or model-signing wrote with a key",
            found=reason_of(error),
            remedy="get the signature from its sender again",
        ) from error
    return SignatureFile(data, key_sha256, files)


def _files(resources: list[Any]) -> dict[str, str]:
    """Name -> sha256. Raises ValueError for other digests, and for a name that occurs twice."""
    files: dict[str, str] = {}
    for resource in resources:
        name, digest = _at(resource, str, "name"), _at(resource, str, "digest")
        if _at(resource, str, "algorithm") != "sha256" or not re.fullmatch(SHA256_PATTERN, digest):
            raise ValueError(f"the digest of {shown(name)} is not a sha256")
        if not name or len(name) > _MAX_NAME_CHARACTERS or name in files:
            raise ValueError(f"the file name {shown(name)} is empty, too long or occurs twice")
        files[name] = digest
    return files


def _require(value: Any, fixed: dict[tuple[str, ...], str]) -> None:
    for keys, expected in fixed.items():
        if (found := _at(value, str, *keys)) != expected:
            raise ValueError(f"{'.'.join(keys)} is {shown(found)} instead of {expected}")


def _at[T](value: Any, kind: type[T], *keys: str) -> T:
    """``value[keys[0]][keys[1]]...``. Raises ValueError if it is missing or not a ``kind``."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"{'.'.join(keys)} is missing or is not a {kind.__name__}")
    return value
