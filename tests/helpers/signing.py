"""Keys and signatures for tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distinit.pipeline.signing_keys import make_key_pair

__all__ = ["key_pair", "rewrite_signature"]


def key_pair(folder: Path, name: str = "team") -> tuple[Path, Path]:
    """A new private and public key."""
    private = folder / name
    make_key_pair(private, None)
    return private, folder / f"{name}.pub"


def rewrite_signature(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change the bundle and its statement in place, without signing again."""
    bundle = json.loads(path.read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(bundle, statement)
    payload = json.dumps(statement).encode()
    if isinstance(bundle.get("dsseEnvelope"), dict):
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    path.write_text(json.dumps(bundle))
