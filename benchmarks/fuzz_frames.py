"""Target of ``fuzz.py``: frame stores, the changes made to them, and everything that reads them.

One file of a small store is damaged (bits, blocks, length), replaced (by a link, a pipe, a folder
or nothing) or forged (a record with an arbitrary value and a matching seal).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import Change, Operation

from distinit.pipeline.frames.commits import read_manifest
from distinit.pipeline.frames.jpeg import decode_frames
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.verify import verify_store
from distinit.pipeline.frames.writer import FrameStoreWriter, store_lock
from distinit.pipeline.progress import NullProgress
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import FlowSpec, FrameGeometry

_KINDS = ("rgb", "flow")
_WILD: tuple[Any, ...] = (
    -1, 0, 1, 7, 255, 65_535, 65_536, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**63, 10**400, 1e308,
    0.5, True, None, "", "a", "../x", "/etc/passwd", "\ud800", "\x1b[31m", "f" * 64, [], {}, [[[]]],
)  # fmt: skip


type Mutation = Callable[[random.Random, Path], Change]


def build(root: Path, *, flow: bool = False) -> None:
    """Write a store of three videos in two units, either RGB or flow."""
    channels = 2 if flow else 3
    spec = FlowSpec(flow_range=20, jpeg_quality=95, opencv="none") if flow else None
    pixels = np.random.default_rng(0).integers(0, 256, (9, 24, 40, channels), np.uint8)
    with store_lock(root):
        writer = FrameStoreWriter(root, FrameGeometry(), "1" * 64, spec)
        with writer.open_unit(0) as unit:
            unit.append("a", "a" * 64, 0, pixels, 10.0)
            unit.append("b", "b" * 64, 0, pixels[:4], 25.0)
            unit.fail_video("d", "d" * 64, "made to fail")
            unit.commit()
        with writer.open_unit(1) as unit:
            unit.append("b", "b" * 64, 4, pixels[4:7], 25.0)
            unit.append("c", "c" * 64, 0, pixels[:, :16], 0.0)
            unit.commit()
        writer.finalise([0, 1])


def frames_of(store: FrameStore) -> Iterator[tuple[tuple[str, int], bytes]]:
    """Yield every frame of a store, and decode it. Raises what reading it raises."""
    for video_id, info in store.videos.items():
        for frame in range(min(info.frame_count, 1_000)):
            (jpeg,) = store.jpegs(video_id, [frame])
            decode_frames([jpeg], store.channels)
            yield (video_id, frame), jpeg


def _a_file(rng: random.Random, root: Path, pattern: str = "*") -> Path:
    return rng.choice(sorted(p for p in root.rglob(pattern) if p.is_file() and p.name != ".lock"))


def flip_bits(rng: random.Random, root: Path) -> Change:
    path = _a_file(rng, root)
    data = bytearray(path.read_bytes())
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 1, 2, 8)))]
    for place in places:
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return Change(f"bits of {path.name} flipped at {places}")


def overwrite(rng: random.Random, root: Path) -> Change:
    path = _a_file(rng, root)
    data = bytearray(path.read_bytes())
    start, length = rng.randrange(len(data)), rng.choice((1, 4, 8, 64, 4_096))
    fill = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    end = min(len(data), start + length)
    data[start:end] = fill[: end - start]
    path.write_bytes(data)
    return Change(f"{path.name}: {length} bytes at {start} overwritten")


def exchange(rng: random.Random, root: Path) -> Change:
    path = _a_file(rng, root, "*.arrow")
    data = bytearray(path.read_bytes())
    length = rng.choice((1, 4, 8, 256))
    first, second = (rng.randrange(len(data) - length) for _ in range(2))
    one, other = bytes(data[first : first + length]), bytes(data[second : second + length])
    data[second : second + length] = one
    data[first : first + length] = other
    path.write_bytes(data)
    return Change(f"{path.name}: {length} bytes at {first} and {second} exchanged")


def change_length(rng: random.Random, root: Path) -> Change:
    path = _a_file(rng, root)
    size = path.stat().st_size
    length = rng.choice((0, 1, size - 1, size + 1, rng.randrange(size), size + 4_096, 1 << 36))
    os.truncate(path, length)
    return Change(f"{path.name}: {length} bytes instead of {size}")


def replace_file(rng: random.Random, root: Path) -> Change:
    path = _a_file(rng, root)
    what = rng.choice(("nothing", "folder", "pipe", "/dev/zero", "a link to itself", "another"))
    data = path.read_bytes()
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "/dev/zero":
        path.symlink_to("/dev/zero")
    elif what == "a link to itself":
        path.symlink_to(path.name)
    elif what == "another":
        others = [p.read_bytes() for p in sorted(root.rglob(f"*{path.suffix}")) if p.is_file()]
        path.write_bytes(rng.choice(others or [data[::-1]]))
    return Change(f"{what} in place of {path.name}")


def rewrite_record(rng: random.Random, root: Path) -> Change:
    """Set an arbitrary value in a record and recompute its seal, as an attacker would."""
    path = _a_file(rng, root, "*.json")
    record = json.loads(path.read_text())
    holder, key = rng.choice(list(_places(record)))
    value = rng.choice(_WILD)
    if rng.random() < 0.2:
        del holder[key]
        value = "nothing"
    else:
        holder[key] = value
    if "seal" in record:
        others = {name: value for name, value in record.items() if name != "seal"}
        with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate cannot be sealed
            record["seal"] = sha256_of(json.loads(_text(others)))
    path.write_text(_text(record))
    return Change(f"{path.name}: {key} is {str(value)[:30]!r}", forged=True)


def _text(record: Any) -> str:
    return json.dumps(record).replace("1e+400", "1e400")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def rewrite_footer(rng: random.Random, root: Path) -> Change:
    """Overwrite Arrow's own metadata, at the start or end of the file, with sizes unchanged."""
    path = _a_file(rng, root, "*.arrow")
    data = bytearray(path.read_bytes())
    start = rng.choice((0, len(data) - 600))
    for _ in range(rng.choice((1, 3, 10))):
        place = start + rng.randrange(600)
        data[place : place + 4] = rng.randbytes(4)
    path.write_bytes(data)
    return Change(f"{path.name}: metadata overwritten from byte {start}")


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, flip_bits, overwrite, exchange, change_length, replace_file, rewrite_record,
    rewrite_record, rewrite_footer,
)  # fmt: skip


class FramesTarget:
    """An RGB store and a flow store in one folder; one of them is changed."""

    @property
    def operations(self) -> Mapping[str, Operation]:
        return {"read": _read, "verify": _verify, "reopen": _reopen}

    def build(self, root: Path) -> None:
        for kind in _KINDS:
            build(root / kind, flow=kind == "flow")

    def change(self, root: Path, rng: random.Random) -> Change:
        return rng.choice(MUTATIONS)(rng, root / rng.choice(_KINDS))


TARGET = FramesTarget()


def _read(root: Path) -> str:
    """Read every frame of every video."""
    stores = (FrameStore.open(root / kind) for kind in _KINDS)
    return sha256_of(
        [[video, frame, jpeg.hex()] for s in stores for (video, frame), jpeg in frames_of(s)]
    )


def _verify(root: Path) -> str:
    for kind in _KINDS:
        report = verify_store(root / kind, deep=True, progress=NullProgress())
        if report.problems or not report.complete:
            raise FrameStoreError("verify reports problems", found=report.problems)
    return "ok"


def _reopen(root: Path) -> str:
    """Open for writing, and fail if units would have to be written again."""
    for kind in _KINDS:
        with store_lock(root / kind):
            writer = FrameStoreWriter(
                root / kind, FrameGeometry(), "1" * 64, read_manifest(root / kind).flow
            )
            pending = writer.pending_units([0, 1])
        if pending:
            raise FrameStoreError("units have to be written again", found=pending)
    return "nothing"
