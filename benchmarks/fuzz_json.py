"""Changes to JSON records: values, keys, and bytes that are not valid JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    64,
    10**9,
    2**31,
    2**63 - 1,
    2**64,
    1.5,
    -0.0,
    1e308,
    "",
    "float99",
    "topk:0",
    "topk:7",
    "topk:999",
    "../../etc/passwd",
    "/dev/zero",
    "\ud800",
    "\x1b[2J\nok: all bytes match",
    "f" * 64,
    "x" * 1_000_000,
    [],
    {},
    [[[[]]]],
    {"a": 1},
)
_RAW = (
    b"NaN",
    b"Infinity",
    b"1e9999",
    b"1" * 5000,
    b"[" * 100_000,
    b'{"a":1,"a":2}',
    b'"\xff\xfe"',
    b'"\\ud800"',
    b"",
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def set_anywhere(record: Any, rng: random.Random) -> str:
    """Change, delete or add one value in place. Returns a description."""
    container, key = rng.choice(list(_places(record)))
    choice = rng.random()
    if choice < 0.1:
        del container[key]
        return f"{key!r} deleted"
    if choice < 0.2 and isinstance(container, dict):
        container["another"] = 1
        return f"a key next to {key!r}"
    old = container[key]
    if isinstance(old, int) and rng.random() < 0.5:
        container[key] = old + rng.choice((-1, 1, 64))
    else:
        container[key] = rng.choice(VALUES)
    return f"{key!r} = {str(container[key])[:40]!r}"


def damage_json(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return changed bytes for a JSON record, and a description."""
    if rng.random() < 0.7:
        record = json.loads(data)
        what = set_anywhere(record, rng)
        return json.dumps(record).encode("utf-8", "surrogatepass"), what
    raw = rng.choice(_RAW)
    if rng.random() < 0.3:
        return raw, f"replaced by {raw[:20]!r}"
    colon = rng.choice([place for place, byte in enumerate(data) if byte == ord(":")])
    end = min(p for p in (data.find(b",", colon), data.find(b"}", colon), len(data)) if p >= 0)
    return data[: colon + 1] + raw + data[end:], f"{raw[:20]!r} at {colon}"
