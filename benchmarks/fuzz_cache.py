"""Target of ``fuzz.py``: target caches, the changes made to them, and all their readers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from fuzz import Change, Operation
from fuzz_json import damage_json, set_anywhere
from made_up_cache import made_up_teacher, write_made_up_cache

from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.pipeline.audit.units import read_units
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.shards import crc32c
from distinit.pipeline.cache.tables import write_table
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.storage import sha256_file
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import UnitCommit
from distinit.stages.cache_info import cache_info

CAPACITY = 64
FRAMES = (30, 20, 70, 5, 0)  # one video spans two units, and one failed
TEACHERS = (
    made_up_teacher("half", 7),
    made_up_teacher("byte", 9, "int8"),
    made_up_teacher("best", 11, "topk:3"),
    made_up_teacher("body", 5, target="features"),
)
INTEGERS = (-1, 0, 1, 63, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
FLOATS = (float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1e30, -1e30, 88.0)
TEXTS = ("", "../../etc/passwd", "\x1b[2J", "x" * 70_000, "0" * 16, "f" * 64, "a\nb", "\u202e")


def _digest(parts: Iterable[Any]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()


def _open(root: Path) -> str:
    TargetCache.open(root)
    return "open"


def _info(root: Path) -> str:
    str(cache_info(root).summary())
    return "info"


def _index(root: Path) -> str:
    cache = TargetCache.open(root)
    index = cache.index
    columns = (index.video_ids, index.first_row, index.row_count, index.frame_index)
    entropies = [
        cache.targets(t.id).entropy_nats for t in TEACHERS if t.identity.target != "features"
    ]
    return _digest([*columns, index.video_number, *entropies])


def _targets(root: Path) -> str:
    cache = TargetCache.open(root)
    rows_N = np.flatnonzero(cache.index.video_number >= 0)
    return _digest(cache.targets(t.id).logits(rows_N) for t in TEACHERS)


def _zarr(root: Path) -> str:
    cache = TargetCache.open(root)
    rows_N = np.flatnonzero(cache.index.video_number >= 0)
    arrays: list[zarr.Array[Any]] = [cache.zarr_array(teacher.id) for teacher in TEACHERS]
    try:
        return _digest(array.oindex[rows_N] for array in arrays)
    except MemoryError:
        raise
    except Exception as error:  # Zarr raises its own exceptions
        raise CacheCorruptError(f"zarr: {error}") from error


def _videos(root: Path) -> str:
    cache = TargetCache.open(root)
    _ = cache.index  # training reads both the index and the videos
    names = ("video_id", "digest", "status", "frame_count")
    return _digest(str(batch.to_pylist()).encode() for batch in cache.video_batches(names))


def _audit(root: Path) -> str:
    cache = TargetCache.open(root)
    ids = cache.videos.column("video_id").to_pylist()
    parts: list[Any] = []
    for teacher in TEACHERS:
        if teacher.identity.target == "features":
            continue
        scan = ConfidenceScan(len(ids), cache.teachers[teacher.id].identity.classes)
        for rows in read_units(cache, [teacher.id], {name: n for n, name in enumerate(ids)}):
            scan.add(rows.teachers[teacher.id])
        parts += [scan.joint_CB, scan.video_entropy_sum_nats]
    return _digest(parts)


def _verify(deep: bool) -> Operation:
    def verify(root: Path) -> str:
        problems = verify_cache(root, deep=deep).problems
        if problems:
            raise CacheCorruptError(problems[0])
        return "ok"

    return verify


def _files(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if path.is_file())


def _everything(root: Path) -> list[Path]:
    return [path for path in _files(root, "**/*") if path.name not in (".lock", ".fence")]


def _flip(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 8, 64))):
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return "bits flipped"


def _flip_bytes(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    place, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 64))
    data[place : place + size] = rng.choice((b"\xff", b"\x00", b"\x80", b"\x7f")) * size
    path.write_bytes(data)
    return f"{size} bytes at {place}"


def _cut(path: Path, rng: random.Random) -> str:
    size = path.stat().st_size
    sizes = (0, 1, size // 2, size - 1, rng.randrange(size), size + 9, 3 << 30)
    os.truncate(path, rng.choice(sizes))
    return f"{path.stat().st_size} bytes long instead of {size}"


def _replace(path: Path, rng: random.Random) -> str:
    kind = rng.choice(("gone", "fifo", "zero", "folder", "outside", "inside", "noise"))
    root = next(p for p in path.parents if (p / "teachers").is_dir())
    others = [other for other in _everything(root) if other != path]
    data = path.read_bytes()
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "outside":
        aside = root.parent / "case-home" / "aside"
        aside.parent.mkdir(exist_ok=True)
        aside.write_bytes(data)
        path.symlink_to(aside)
    elif kind == "inside":
        path.symlink_to(rng.choice(others))
    elif kind == "noise":
        path.write_bytes(rng.randbytes(len(data)))
    return kind


def _swap(path: Path, rng: random.Random) -> str:
    root = next(p for p in path.parents if (p / "teachers").is_dir())
    alike = [other for other in _everything(root) if other.suffix == path.suffix and other != path]
    other = rng.choice(alike or _everything(root))
    data = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return f"swapped with {other.relative_to(root)}"


def _damage(root: Path, rng: random.Random) -> Change:
    """Make a change that some checksum covers.

    Exception: a whole shard in the place of another one has correct checksums. It counts as forged,
    since only ``verify`` reads enough to notice it.
    """
    path = rng.choice(_everything(root))
    how = rng.choice((_flip, _flip, _flip, _flip_bytes, _cut, _replace, _swap))
    what = how(path, rng)
    moved = what.startswith("swapped") or what == "inside"
    return Change(f"{path.relative_to(root)}: {what}", forged=moved and path.suffix == "")


def _json(root: Path, rng: random.Random) -> Change:
    path = rng.choice(_files(root, "**/*.json"))
    data, what = damage_json(path.read_bytes(), rng)
    path.write_bytes(data)
    # No checksum covers manifest.json; only verify compares it with the rest.
    return Change(f"{path.relative_to(root)}: {what}", forged=path.name == "manifest.json")


def _reseal(root: Path, name: str) -> None:
    """Update the commit records that list a file, so that they match its contents."""
    entry = {"size": (root / name).stat().st_size, "sha256": sha256_file(root / name)}
    for path in root.glob("teachers/*/commits/*.json"):
        record = json.loads(path.read_text())
        if name in record["files"]:
            record["files"][name] = entry
            path.write_text(
                UnitCommit.model_validate_json(json.dumps(record)).resealed().model_dump_json()
            )


def _forged_table(root: Path, rng: random.Random) -> Change:
    """Set an impossible value in a table, and update the records that cover it."""
    path = rng.choice([p for p in _files(root, "**/*.parquet") if pq.read_metadata(p).num_rows])
    table = pq.read_table(path)
    number = rng.randrange(table.num_columns)
    kind, name = table.schema.field(number).type, table.schema.names[number]
    values = table.column(number).to_pylist()
    place = rng.randrange(len(values))
    choice: Any = rng.choice(TEXTS if pa.types.is_string(kind) else FLOATS)
    if pa.types.is_integer(kind):
        low, high = (0, 64) if pa.types.is_unsigned_integer(kind) else (1, kind.bit_width - 1)
        choice = min(max(rng.choice(INTEGERS), -low << (high if low else 0)), (1 << high) - 1)
    elif pa.types.is_boolean(kind):
        choice = not values[place]
    values[place] = choice
    column = pa.array(values, kind)
    write_table(table.set_column(number, table.schema.field(number), column), path)
    relative = path.relative_to(root).as_posix()
    _reseal(root, relative)
    (root / "manifest-sha256.txt").unlink()
    return Change(f"{relative}: {name}[{place}] = {str(choice)[:40]!r}", forged=True)


def _forged_sizes(root: Path, rng: random.Random) -> Change:
    """Change sizes in the metadata of the plan."""
    table = pq.read_table(root / "plan.parquet")
    key = rng.choice((b"capacity", b"base_videos"))
    value = rng.choice((b"", b"0", b"-1", b"1e9999", b"9" * 5000, b"\xff\xfe", b"128", b"1048576"))
    metadata = {**(table.schema.metadata or {}), key: value}
    write_table(table.replace_schema_metadata(metadata), root / "plan.parquet")
    (root / "manifest-sha256.txt").unlink()
    return Change(f"plan.parquet: {key.decode()} = {value[:20]!r}", forged=True)


def _forged_parquet_bytes(root: Path, rng: random.Random) -> Change:
    """Change arbitrary bytes of a table, with a preference for its footer."""
    path = rng.choice(_files(root, "**/*.parquet"))
    data = bytearray(path.read_bytes())
    footer = struct.unpack("<I", data[-8:-4])[0]
    start = len(data) - 8 - footer if rng.random() < 0.6 else 4
    for _ in range(rng.choice((1, 1, 2, 4))):
        data[rng.randrange(start, len(data) - 4)] = rng.randrange(256)
    path.write_bytes(data)
    relative = path.relative_to(root).as_posix()
    _reseal(root, relative)
    (root / "manifest-sha256.txt").unlink()
    return Change(f"{relative}: bytes, and the checksums", forged=True)


def _forged_shard(root: Path, rng: random.Random) -> Change:
    """Change values or the index of a shard, and correct every crc32c."""
    path = rng.choice(_files(root, "teachers/*/*/c/*/0"))
    data = bytearray(path.read_bytes())
    index = CAPACITY // 16 * 16
    pairs = np.frombuffer(bytes(data[-index - 4 : -4]), "<u8").reshape(-1, 2).copy()
    chunk = rng.choice(np.flatnonzero(pairs[:, 1] < 1 << 40).tolist())
    if rng.random() < 0.5:
        values = (0, 1, 1 << 31, 1 << 40, (1 << 64) - 1, (1 << 63) + 5, len(data), int(pairs[0, 0]))
        pairs[chunk, rng.randrange(2)] = rng.choice(values)
        raw = pairs.tobytes()
        data[-index - 4 :] = raw + crc32c(raw).to_bytes(4, "little")
        what = "an index"
    else:
        start, size = int(pairs[chunk, 0]), int(pairs[chunk, 1]) - 4
        place, width = start + rng.randrange(size), rng.choice((1, 2, 4))
        data[place : place + width] = rng.choice((b"\xff", b"\x7c", b"\x00")) * width
        data[start + size : start + size + 4] = crc32c(bytes(data[start : start + size])).to_bytes(
            4, "little"
        )
        what = "values"
    path.write_bytes(data[: path.stat().st_size])
    relative = path.relative_to(root).as_posix()
    _reseal(root, relative)
    (root / "manifest-sha256.txt").unlink(missing_ok=True)
    return Change(f"{relative}: {what}, and the checksums", forged=True)


def _forged_commit(root: Path, rng: random.Random) -> Change:
    """Change any value of a commit record, and recompute its seal if it is still a valid record."""
    path = rng.choice(_files(root, "teachers/*/commits/*.json"))
    record = json.loads(path.read_text())
    what = set_anywhere(record, rng)
    text = json.dumps(record)
    with contextlib.suppress(ValueError):  # an invalid record is refused as such
        text = UnitCommit.model_validate_json(text).resealed().model_dump_json()
    path.write_text(text, errors="surrogatepass")
    (root / "manifest-sha256.txt").unlink()
    return Change(f"{path.relative_to(root)}: {what}, resealed", forged=True)


def _forged_rows(root: Path, rng: random.Random) -> Change:
    """Change sizes in the manifest, and in every array that must match it."""
    layout = CacheLayout(root)
    manifest = json.loads(layout.manifest.read_text())
    units = rng.choice((0, 1, 6, 1_000, 10_000_000))
    capacity = rng.choice((64, 128, 1 << 20))
    manifest["row_space"] |= {"units": units, "capacity": capacity}
    if rng.random() < 0.5:
        manifest |= {"complete": False, "content_digest": ""}
    layout.manifest.write_text(json.dumps(manifest))
    for path in root.glob("teachers/*/*/zarr.json"):
        array = json.loads(path.read_text())
        array["shape"][0] = units * capacity
        array["chunk_grid"]["configuration"]["chunk_shape"][0] = capacity
        path.write_text(json.dumps(array, indent=2) + "\n")
    return Change(f"{units} units of {capacity} rows", forged=True)


_CHANGES: tuple[tuple[float, Callable[[Path, random.Random], Change]], ...] = (
    (6, _damage),
    (3, _json),
    (2, _forged_table),
    (2, _forged_parquet_bytes),
    (2, _forged_shard),
    (2, _forged_commit),
    (0.5, _forged_sizes),
    (0.5, _forged_rows),
)


class CacheTarget:
    """A target cache with four teachers: one per encoding, and one that stores features."""

    operations: Mapping[str, Operation] = {
        "open": _open,
        "info": _info,
        "index": _index,
        "targets": _targets,
        "zarr_array": _zarr,
        "videos": _videos,
        "audit": _audit,
        "verify shallow": _verify(False),
        "verify deep": _verify(True),
    }

    def build(self, root: Path) -> None:
        write_made_up_cache(root, FRAMES, TEACHERS, CAPACITY)

    def change(self, root: Path, rng: random.Random) -> Change:
        weights = [weight for weight, _ in _CHANGES]
        (chosen,) = rng.choices([change for _, change in _CHANGES], weights)
        return chosen(root, rng)


TARGET = CacheTarget()
