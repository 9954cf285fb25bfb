"""Target of ``fuzz.py``: mapping files, and the hashes that a match keeps next to them.

A file is damaged or replaced as in ``fuzz_frames``, or a row or the header of the mapping file is
forged: it gets any value, and matching digests.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz import Change, Operation
from fuzz_frames import change_length, flip_bits, overwrite, replace_file
from fuzz_json import set_anywhere

from distinit.pipeline.matching.hash_parts import CopyHashes, read_parts, write_part
from distinit.pipeline.matching.mapping import read_mapping, write_mapping
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import MatchError
from distinit.schemas.matching import MatchedVideo, MatchLimits

NAME, KEY = "clips.match", b"distinit-match"
_TEXTS = ("", "x", "../x", "/etc/passwd", "a/../b", "\x1b[2J", "f" * 64, "x" * 70_000, "exact")
_NUMBERS = (-(2**63), -1, 0, 1, 9, 10, 2**40, 2**63 - 1)
_SHARES = (-1.0, 0.0, 0.5, 1.0, 1e308, float("nan"), float("inf"))


def build(root: Path) -> None:
    """Write a mapping file of three videos, and the hashes of two files."""
    videos = [
        _row("a" * 16, "exact", copy_path="x/a.mp4", copy_digest="a" * 64),
        _row("b" * 16, "re-encoded", copy_path="b.mkv", copy_digest="e" * 64),
        _row("c" * 16, "missing", reason="no file shows it"),
    ]
    write_mapping(root / NAME, videos, "1" * 64, MatchLimits())
    hash_F = np.random.default_rng(0).integers(0, 2**64, 9, np.uint64)
    parts = [CopyHashes(digit * 64, hash_F, np.arange(9) / 25) for digit in "ef"]
    write_part(root, parts)


def _row(video_id: str, kind: str, **values: str) -> MatchedVideo:
    usable = bool(values.get("copy_digest"))
    known = {"video_id": video_id, "path": f"{video_id[0]}.mp4", "digest": video_id[0] * 64}
    numbers = {"frame_count": 9, "copy_frame_count": 9 * usable, "agreeing_share": float(usable)}
    return MatchedVideo.model_validate(
        {**known, **numbers, "kind": kind, "usable": usable, **values}
    )


def forge_row(rng: random.Random, root: Path) -> Change:
    """Give a cell of the mapping file any value of its type."""
    table = pq.read_table(root / NAME)
    rows: list[dict[str, Any]] = table.to_pylist()
    number, name = rng.randrange(len(rows)), rng.choice(table.schema.names)
    kind = table.schema.field(name).type
    values: tuple[Any, ...] = _TEXTS if pa.types.is_string(kind) else _NUMBERS
    if pa.types.is_floating(kind):
        values = _SHARES
    rows[number][name] = rng.choice((True, False)) if name == "usable" else rng.choice(values)
    _write(root, rows, json.loads(table.schema.metadata[KEY]))
    return Change(f"{name} of row {number} is {str(rows[number][name])[:40]}", forged=True)


def forge_header(rng: random.Random, root: Path) -> Change:
    """Change a value of the header."""
    table = pq.read_table(root / NAME)
    header = json.loads(table.schema.metadata[KEY])
    what = set_anywhere(header, rng)
    _write(root, table.to_pylist(), header)
    return Change(f"header: {what}", forged=True)


def _write(root: Path, rows: list[dict[str, Any]], header: dict[str, Any]) -> None:
    if header.get("rows_sha256"):
        header["rows_sha256"] = sha256_of(rows)
    with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate has no digest
        header["seal"] = sha256_of({name: v for name, v in header.items() if name != "seal"})
    schema = pq.read_schema(root / NAME).with_metadata({KEY: json.dumps(header).encode()})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), root / NAME)


MUTATIONS = (flip_bits, overwrite, change_length, replace_file, forge_row, forge_row, forge_header)


class MappingTarget:
    """A mapping file and a part of hashes."""

    @property
    def operations(self) -> Mapping[str, Operation]:
        return {"mapping": _mapping, "hashes": _hashes}

    def build(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        build(root)

    def change(self, root: Path, rng: random.Random) -> Change:
        return rng.choice(MUTATIONS)(rng, root)


TARGET = MappingTarget()


def _mapping(root: Path) -> str:
    """Everything that distillation and frames build take from a mapping file."""
    found = read_mapping(root / NAME)
    rows = [video.model_dump(mode="json") for video in found.videos]
    return sha256_of([found.header.model_dump(mode="json"), rows])


def _hashes(root: Path) -> str:
    """The hashes of both files. Raises MatchError if they would be decoded again."""
    videos = [video for part in read_parts(root) for video in part]
    if len(videos) < 2:
        raise MatchError("files have to be decoded again", found=f"{len(videos)} of 2")
    return sha256_of([[v.digest, v.hash_F.tolist(), v.pts_seconds_F.tolist()] for v in videos])
