"""A reader of target caches that is written from docs/cache-format.md alone.

It uses pyarrow for the tables, and neither distinit, zarr nor numpy: everything else that it needs
to know is in the document, which test_independent_reader.py proves.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

type Columns = Mapping[str, tuple[str, Sequence[Any]]]
"""Column -> (struct's letter of its type, or "text"), values."""

KINDS = {pa.int64(): "q", pa.int32(): "i", pa.uint64(): "Q", pa.float32(): "f", pa.float64(): "d"}
KINDS |= {pa.bool_(): "?", pa.string(): "text"}
DTYPES = {"e": "<f2", "f": "<f4", "b": "|i1", "H": "<u2", "i": "<i4"}
ABSENT = (2**64 - 1, 2**64 - 1)
IN_VIDEOS = ("video_id", "digest", "status", "frame_count", "width", "height", "in_corpus")
CHUNK_ROWS = 16


class RefusedError(Exception):
    """What the document says that a reader must refuse."""


def crc32c(data: bytes) -> int:
    """CRC-32C: reflected polynomial 0x82F63B78, inverted before and after."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def canonical(value: Any) -> str:
    """Hex sha256 of the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def column_bytes(values: Sequence[Any], kind: str) -> bytes:
    """The bytes of a column; ``kind`` is struct's letter, or "text"."""
    if kind == "text":
        texts = [text.encode() for text in values]
        return struct.pack(f"<{len(texts)}q", *map(len, texts)) + b"".join(texts)
    return struct.pack(f"<{len(values)}{kind}", *values)


def columns_of(path: Path) -> Columns:
    table = pq.read_table(path)
    return {
        field.name: (KINDS[field.type], table.column(field.name).to_pylist())
        for field in table.schema
    }


def unit_digest(
    frames: Columns, confidence: Columns, arrays: Mapping[str, tuple[str, int, bytes]], rows: int
) -> str:
    """``content_sha256``; ``arrays``: name -> numpy's dtype, width, bytes of the used rows."""
    sha = hashlib.sha256()
    for label, table in (("frames", frames), ("confidence", confidence)):
        for name, (kind, values) in table.items():
            sha.update(f"{label}.{name}:{rows}:".encode() + column_bytes(values, kind))
    for name, (dtype, width, data) in sorted(arrays.items()):
        sha.update(f"{name}:{dtype}:{rows}x{width}:".encode() + data)
    return sha.hexdigest()


def record_sha256(text: str) -> str:
    """``record_sha256`` of a commit record, from the text of its file."""
    token = r'("(?:[^"\\]|\\.)*")|\s+'
    tight = re.sub(token, lambda found: found[1] or "", text)
    tight = re.sub(r'"format_minor":\d+,', "", tight, count=1)
    tight = re.sub(r',"feature_(fidelity|precision_loss)":\{[^{}]*\}', "", tight)
    kept = tight[: tight.rindex(',"record_sha256":')] + "}"
    return hashlib.sha256(kept.encode()).hexdigest()


def read_shard(path: Path, row_bytes: int, capacity: int) -> dict[int, bytes]:
    """Row within the unit -> bytes; chunks that were never written are left out."""
    data = path.read_bytes()
    count = capacity // CHUNK_ROWS
    index, checksum = data[-16 * count - 4 : -4], data[-4:]
    if crc32c(index) != int.from_bytes(checksum, "little"):
        raise RefusedError(f"{path}: index")
    rows = {}
    for chunk, (offset, size) in enumerate(struct.iter_unpack("<QQ", index)):
        if (offset, size) == ABSENT:
            continue
        stored = data[offset : offset + size]
        if crc32c(stored[:-4]) != int.from_bytes(stored[-4:], "little"):
            raise RefusedError(f"{path}: chunk {chunk}")
        for row in range(CHUNK_ROWS):
            values = stored[row * row_bytes : (row + 1) * row_bytes]
            rows[chunk * CHUNK_ROWS + row] = values
    return rows


def as_float32(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


class PlainCache:
    """A cache in the folder ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = json.loads((root / "manifest.json").read_text())
        if self.manifest["format"] != "distinit-target-cache":
            raise RefusedError("format")
        if self.manifest["format_version"] != 2 or not self.manifest["complete"]:
            raise RefusedError("version, or not complete")
        self.capacity: int = self.manifest["row_space"]["capacity"]
        self.units = range(self.manifest["row_space"]["units"])

    def record(self, teacher: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._path(teacher, "teacher.json").read_text())
        return found

    def commit_text(self, teacher: str, unit: int) -> str:
        return self._path(teacher, f"commits/unit-{unit:05}.json").read_text()

    def frames(self, unit: int) -> Columns:
        return columns_of(self.root / f"frames/unit-{unit:05}.parquet")

    def confidence(self, teacher: str, unit: int) -> Columns:
        return columns_of(self._path(teacher, f"confidence/unit-{unit:05}.parquet"))

    def arrays(self, teacher: str) -> dict[str, tuple[str, int]]:
        """Array -> struct's letter of its values, and its width."""
        record = self.record(teacher)
        classes, encoding = record["identity"]["classes"], record["encoding"]
        if encoding == "float16":
            return {"logits": ("e", classes)}
        if encoding == "int8":
            return {"logits": ("b", classes), "logits_affine": ("f", 2)}
        kept = int(encoding.removeprefix("topk:"))
        return {"logits": ("e", kept), "logits_ids": ("H" if classes <= 65_536 else "i", kept)}

    def stored(self, teacher: str, name: str, unit: int) -> dict[int, bytes]:
        """Row of the array -> bytes, for the used rows of one unit, ascending."""
        used = self.frames(unit)["row"][1]
        if not used:
            return {}
        letter, width = self.arrays(teacher)[name]
        path = self._path(teacher, f"{name}/c/{unit}/0")
        rows = read_shard(path, struct.calcsize(letter) * width, self.capacity)
        return {row: rows[row - unit * self.capacity] for row in used}

    def targets(self, teacher: str) -> Iterator[tuple[str, int, list[float]]]:
        """(video_id, frame_index, fp32 targets) of every row with an output of the teacher."""
        arrays = self.arrays(teacher)
        for unit in self.units:
            columns = {name: values for name, (_, values) in self.frames(unit).items()}
            logs = self.confidence(teacher, unit).get("log_z", ("f", []))[1]
            commit = json.loads(self.commit_text(teacher, unit))
            without = {*commit["unanswered"], *commit["refused"]}
            values = {
                name: [
                    list(struct.unpack(f"<{width}{letter}", data))
                    for data in self.stored(teacher, name, unit).values()
                ]
                for name, (letter, width) in arrays.items()
            }
            for place, video in enumerate(columns["video_id"]):
                if video not in without:
                    row = {name: rows[place] for name, rows in values.items()}
                    log_z = logs[place] if logs else 0.0
                    yield video, columns["frame_index"][place], self._decoded(teacher, row, log_z)

    def _decoded(self, teacher: str, row: dict[str, list[Any]], log_z: float) -> list[float]:
        if "logits_affine" in row:
            scale, zero = row["logits_affine"]
            return [as_float32(as_float32(scale * q) + zero) for q in row["logits"]]
        if "logits_ids" not in row:
            return row["logits"]
        classes = self.record(teacher)["identity"]["classes"]
        rest = max(1 - sum(math.exp(x - log_z) for x in row["logits"]), 1e-9)
        others = as_float32(log_z + math.log(rest / (classes - len(row["logits"]))))
        found = dict(zip(row["logits_ids"], row["logits"], strict=True))
        return [found.get(number, others) for number in range(classes)]

    def unit_digest(self, teacher: str, unit: int) -> str:
        frames, confidence = self.frames(unit), self.confidence(teacher, unit)
        rows = len(frames["row"][1])
        arrays = {
            name: (DTYPES[letter], width, b"".join(self.stored(teacher, name, unit).values()))
            for name, (letter, width) in self.arrays(teacher).items()
        }
        return unit_digest(frames, confidence, arrays, rows)

    def videos(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(self.root / "videos.parquet").to_pylist()
        return found

    def corpus_digest(self) -> str:
        return canonical(sorted(video["digest"] for video in self.videos()))

    def plan_digest(self, left_out: Sequence[str] = ()) -> str:
        path = self.root / "plan.parquet"
        metadata = pq.read_schema(path).metadata
        sizes = " ".join(metadata[key].decode() for key in (b"capacity", b"base_videos"))
        sha = hashlib.sha256(f"distinit plan {sizes}".encode())
        for name, (kind, values) in columns_of(path).items():
            if name not in left_out:
                sha.update(f"{name}:{len(values)}:".encode() + column_bytes(values, kind))
        return sha.hexdigest()

    def fingerprint(self, teacher: str) -> str:
        identity = self.record(teacher)["identity"]
        del identity["probe"]
        if not identity["preprocessing"]["flip"]:
            del identity["preprocessing"]["flip"]
        return canonical(identity)

    def teacher_digest(self, teacher: str) -> str:
        """``record_sha256`` of a teacher in the manifest."""
        record = self.record(teacher) | {"fidelity": None}
        left_out = ("precision_loss", "encoded_from", "format_minor")
        left_out += ("feature_fidelity", "feature_precision_loss")
        return canonical({key: value for key, value in record.items() if key not in left_out})

    def content_digest(self) -> str:
        teachers = {}
        for teacher in self.manifest["teachers"]:
            record = self.record(teacher)
            fields = {key: record[key] for key in ("fingerprint", "encoding")}
            units = {str(unit): self.unit_digest(teacher, unit) for unit in self.units}
            teachers[teacher] = fields | {"units": units}
        videos = sorted(self.videos(), key=lambda video: str(video["video_id"]))
        content = {
            "format_version": self.manifest["format_version"],
            "sampling": self.manifest["sampling"],
            "capacity": self.capacity,
            "videos": [{key: video[key] for key in IN_VIDEOS} for video in videos],
            "teachers": teachers,
        }
        return canonical(content)

    def _path(self, teacher: str, name: str) -> Path:
        return self.root / "teachers" / teacher / name
