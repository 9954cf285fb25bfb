"""Targets for coverage-guided fuzzing: one file of a small intact folder is replaced by any bytes.

The first byte of an input says which file; the rest is its content. If that byte is above 127, the
checksums that cover the file are recomputed, as a hostile sender would, so that the fuzzer gets
past them. Then everything that reads this file reads it. Only a DistInitError may come out.

``atheris_fuzz.py`` runs these targets; the seeds are in ``tests/golden/fuzz``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import fuzz_frames
import numpy as np
import torch

from distinit.pipeline.cache.arrays import shard_bytes
from distinit.pipeline.cache.checksums import check_listed
from distinit.pipeline.cache.encoding import ArraySpec, array_specs
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_commit, read_teacher
from distinit.pipeline.cache.shard_rows import crc32c
from distinit.pipeline.cache.shards import ShardReader
from distinit.pipeline.cache.signature_file import read_signature
from distinit.pipeline.cache.tables import (
    read_batches,
    read_plan,
    read_planned_ids,
    read_table,
    write_table,
)
from distinit.pipeline.cache.unit_tables import read_confidence, read_frames
from distinit.pipeline.cache.whole_check import checksum_problems
from distinit.pipeline.frames.commits import check_size
from distinit.pipeline.frames.commits import read_commit as read_store_commit
from distinit.pipeline.frames.commits import read_manifest as read_store
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter, store_lock
from distinit.pipeline.matching.mapping import read_mapping
from distinit.pipeline.pickled import read_pickled
from distinit.pipeline.records import file_entry
from distinit.pipeline.students.io import read_student_record
from distinit.pipeline.tensors import read_shapes, read_tensors, write_tensors
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import DistInitError
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.manifest import UnitCommit
from distinit.schemas.tables import MATCH_SCHEMA, VIDEOS_SCHEMA

__all__ = ["SEEDS", "TARGETS", "ByteTarget", "mutated", "run_one", "seeds_of"]

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
SEEDS = GOLDEN / "fuzz"
UNIT = 1  # of the golden cache: its rows are all of one video
CAPACITY = 64
SIG = "cache.sig"
MAPPING = "mapping.parquet"
HEADER = b"distinit-match"
FORGED = 128
"""Added to the first byte of an input: checksums are recomputed."""

type Read = Callable[[Path], object]
"""Reads the folder whose file was replaced. Raises DistInitError."""


class ByteTarget(Protocol):
    """A small folder, and what reads each of its files."""

    files: Mapping[str, Read]

    def build(self, root: Path) -> None:
        """Write the intact folder."""
        ...

    def forge(self, root: Path, name: str) -> None:
        """Recompute the checksums that cover the file ``name``."""
        ...


def run_one(target: ByteTarget, root: Path, data: bytes) -> bool:
    """Read the folder with one file replaced; whether that was accepted.

    Raises whatever else than a DistInitError comes out: a defect.
    """
    if not data:
        return False
    names = list(target.files)
    name = names[data[0] % FORGED % len(names)]
    path = root / name
    intact = path.read_bytes()
    others: dict[Path, bytes] = {}
    try:
        path.write_bytes(data[1:])
        if data[0] >= FORGED:
            others = {p: p.read_bytes() for p in root.rglob("*.json") if p != path}
            target.forge(root, name)
        target.files[name](root)
    except DistInitError:
        return False
    finally:
        path.write_bytes(intact)
        for other, content in others.items():
            other.write_bytes(content)
    return True


def seeds_of(name: str) -> list[bytes]:
    """The committed inputs of a target, sorted by their name."""
    return [path.read_bytes() for path in sorted((SEEDS / name).iterdir())]


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """A changed input, without a fuzzer: bits, bytes, length or the choice of the file."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(data))
        kind = rng.randrange(5)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place] = rng.choice((0, 0xFF, 0x7F, 0x80, ord('"'), ord("9")))
        elif kind == 2:
            data[place:place] = rng.randbytes(rng.choice((1, 4, 8)))
        elif kind == 3 and len(data) > 9:
            del data[place : place + rng.choice((1, 4, 8))]
        else:
            data[0] ^= FORGED
        data = data or bytearray(b"\0")
    return bytes(data)


class CacheBytes:
    """The golden cache; its tables, records and shards."""

    def __init__(self) -> None:
        unit = f"unit-{UNIT:05}"
        self.files: Mapping[str, Read] = {
            "manifest.json": TargetCache.open,
            "teachers/best/teacher.json": TargetCache.open,
            f"teachers/half/commits/{unit}.json": self._commit,
            "teachers/byte/logits/zarr.json": TargetCache.open,
            "plan.parquet": self._plan,
            "videos.parquet": self._videos,
            f"frames/{unit}.parquet": lambda root: self._tables(root, "half"),
            f"teachers/best/confidence/{unit}.parquet": lambda root: self._tables(root, "best"),
            f"teachers/half/logits/c/{UNIT}/0": lambda root: self._shard(root, "half", "logits"),
            f"teachers/best/logits_ids/c/{UNIT}/0": lambda root: self._shard(
                root, "best", "logits_ids"
            ),
            "manifest-sha256.txt": self._checksums,
        }

    def build(self, root: Path) -> None:
        shutil.copytree(GOLDEN / "cache-v2", root)

    def forge(self, root: Path, name: str) -> None:
        path = root / name
        if name.endswith("/0"):
            path.write_bytes(_with_checksums(path.read_bytes(), _spec_of(root, name)))
        commits = [path] if "/commits/" in name else sorted(root.glob("teachers/*/commits/*.json"))
        for commit in commits:
            with contextlib.suppress(ValueError):  # an invalid record is refused as such
                record = json.loads(commit.read_text())
                if name in record["files"]:
                    record["files"][name] = file_entry(path).model_dump()
                sealed = UnitCommit.model_validate_json(json.dumps(record)).resealed()
                commit.write_text(sealed.model_dump_json())

    def _commit(self, root: Path) -> None:
        layout = CacheLayout(root)
        read_commit(layout, read_teacher(layout, "half"), UNIT)

    def _plan(self, root: Path) -> None:
        layout = CacheLayout(root)
        read_planned_ids(layout.plan)
        read_plan(layout.plan)

    def _videos(self, root: Path) -> None:
        layout = CacheLayout(root)
        list(read_batches(layout.videos, VIDEOS_SCHEMA, ("video_id", "status")))
        read_table(layout.videos, VIDEOS_SCHEMA)

    def _tables(self, root: Path, teacher_id: str) -> None:
        layout = CacheLayout(root)
        record = read_teacher(layout, teacher_id)
        commit = read_commit(layout, record, UNIT)
        read_frames(layout, commit, CAPACITY)
        read_confidence(layout, record, commit, CAPACITY)

    def _shard(self, root: Path, teacher_id: str, name: str) -> None:
        layout = CacheLayout(root)
        spec = _spec_of(root, f"teachers/{teacher_id}/{name}/c/{UNIT}/0")
        reader = ShardReader(layout, teacher_id, spec, UNIT, CAPACITY)
        out_NW = np.empty((CAPACITY, spec.width), spec.dtype)
        reader.read_into(np.arange(CAPACITY), out_NW, np.arange(CAPACITY))

    def _checksums(self, root: Path) -> None:
        layout = CacheLayout(root)
        checksum_problems(layout, ("plan.parquet", "videos.parquet"), None, ())
        check_listed(layout, (layout.plan, layout.videos))


def _spec_of(root: Path, name: str) -> ArraySpec:
    _, teacher_id, array, *_ = name.split("/")
    record = read_teacher(CacheLayout(root), teacher_id)
    specs = array_specs(record.encoding, record.identity.classes)
    return next(spec for spec in specs if spec.name == array)


def _with_checksums(data: bytes, spec: ArraySpec) -> bytes:
    """A shard with the crc32c of its index, and of the chunks that the index places in it."""
    index_bytes = CAPACITY
    if not index_bytes + 4 <= len(data) <= 4 * shard_bytes(spec, CAPACITY):
        return data
    shard = bytearray(data)
    for offset, size in struct.iter_unpack("<QQ", data[-index_bytes - 4 : -4]):
        if size >= 4 and offset + size <= len(data) - index_bytes - 4:
            end = offset + size - 4
            shard[end : end + 4] = crc32c(bytes(shard[offset:end])).to_bytes(4, "little")
    shard[-4:] = crc32c(bytes(shard[-index_bytes - 4 : -4])).to_bytes(4, "little")
    return bytes(shard)


class StoreBytes:
    """A frame store of one unit with two small videos."""

    def __init__(self) -> None:
        self.files: Mapping[str, Read] = {
            "store.json": read_store,
            "commits/unit-00000.json": self._commit,
            "unit-00000.arrow": self._frames,
        }

    def build(self, root: Path) -> None:
        pixels_THWC = np.full((3, 16, 16, 3), 99, np.uint8)
        with store_lock(root):
            writer = FrameStoreWriter(root, FrameGeometry(short_edge=16), "1" * 64)
            with writer.open_unit(0) as unit:
                unit.append("a", "a" * 64, 0, pixels_THWC, 10.0)
                unit.append("b", "b" * 64, 0, pixels_THWC[:1], 25.0)
                unit.commit()
            writer.finalise([0])

    def forge(self, root: Path, name: str) -> None:
        path = root / name
        if path.suffix == ".json":
            with contextlib.suppress(ValueError, AttributeError):
                record: dict[str, Any] = json.loads(path.read_text())
                others = {key: value for key, value in record.items() if key != "seal"}
                path.write_text(json.dumps(others | {"seal": sha256_of(others)}))

    def _commit(self, root: Path) -> None:
        layout = StoreLayout(root)
        commit = read_store_commit(layout, 0)
        for entry in commit.files.values():
            check_size(layout, 0, entry.size)

    def _frames(self, root: Path) -> None:
        store = FrameStore.open(root)
        for _ in fuzz_frames.frames_of(store):
            pass


class StudentBytes:
    """The record and the tensors of a student, and weights that torch.save wrote."""

    def __init__(self) -> None:
        self.files: Mapping[str, Read] = {
            "student.json": lambda root: read_student_record(root),
            "student.safetensors": self._tensors,
            "weights.pt": self._pickled,
        }

    def build(self, root: Path) -> None:
        root.mkdir()
        seeds = seeds_of("student")
        (root / "student.json").write_bytes(seeds[0][1:])
        write_tensors({"a": torch.ones(2, 3), "b": torch.zeros(4)}, root / "student.safetensors")
        torch.save({"a": torch.ones(2, 3)}, root / "weights.pt")

    def forge(self, root: Path, name: str) -> None:
        """No checksum covers what these readers check."""

    def _tensors(self, root: Path) -> None:
        path = root / "student.safetensors"
        with _as_refused():
            read_tensors(path, read_shapes(path))

    def _pickled(self, root: Path) -> None:
        with _as_refused():
            read_pickled(root / "weights.pt")


class SignatureBytes:
    """The signature of a cache. Forged inputs are the statement inside of it."""

    def __init__(self) -> None:
        self.files: Mapping[str, Read] = {"cache.sig": lambda root: read_signature(root / SIG)}

    def build(self, root: Path) -> None:
        root.mkdir()
        (root / SIG).write_bytes(_bundle((SEEDS / "signature" / "statement.json").read_bytes()[1:]))

    def forge(self, root: Path, name: str) -> None:
        path = root / name
        path.write_bytes(_bundle(path.read_bytes()))


def _bundle(statement: bytes) -> bytes:
    """A Sigstore bundle around this in-toto statement, with a signature that nothing verifies."""
    envelope = {
        "payload": base64.b64encode(statement).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": "MEUCIQ==", "keyid": ""}],
    }
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "0" * 64}, "tlogEntries": []},
        "dsseEnvelope": envelope,
    }
    return json.dumps(bundle).encode()


class MappingBytes:
    """A mapping of a receiver's copies, as ``distinit cache match`` writes it."""

    def __init__(self) -> None:
        self.files: Mapping[str, Read] = {MAPPING: lambda root: read_mapping(root / MAPPING)}

    def build(self, root: Path) -> None:
        root.mkdir()
        (root / MAPPING).write_bytes(seeds_of("mapping")[0][1:])

    def forge(self, root: Path, name: str) -> None:
        """Write the rows that can be read with a header that matches them."""
        path = root / name
        with contextlib.suppress(DistInitError, ValueError, KeyError, TypeError):
            table = read_table(path, MATCH_SCHEMA)
            header = json.loads(table.schema.metadata[HEADER])
            header["rows_sha256"] = sha256_of(table.to_pylist())
            header["seal"] = sha256_of({k: v for k, v in header.items() if k != "seal"})
            metadata = {HEADER: json.dumps(header).encode()}
            write_table(table.replace_schema_metadata(metadata), path)


@contextlib.contextmanager
def _as_refused() -> Any:
    """Turn what these readers are documented to raise into a refusal, as their callers do."""
    try:
        yield
    except (OSError, ValueError, RecursionError) as error:
        if "allocate" in str(error):
            raise MemoryError(str(error)) from error  # a size was not checked
        raise DistInitError(str(error)) from error


TARGETS: dict[str, Callable[[], ByteTarget]] = {
    "cache": CacheBytes,
    "store": StoreBytes,
    "student": StudentBytes,
    "signature": SignatureBytes,
    "mapping": MappingBytes,
}


def write_seeds() -> None:
    """Write the seeds: the intact content of every file of every target."""
    for name, make in TARGETS.items():
        target, folder = make(), SEEDS / name
        root = Path(os.environ.get("TMPDIR", "/tmp")) / f"distinit-seeds-{os.getpid()}"
        target.build(root)
        folder.mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(target.files):
            seed = bytes([number]) + (root / file).read_bytes()
            (folder / f"{number:02}-{Path(file).name}").write_bytes(seed)
        shutil.rmtree(root)


if __name__ == "__main__":
    write_seeds()
