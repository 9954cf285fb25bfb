"""docs/cache-format.md: its example reads a real cache, its recipes give the digests of one.

Both without distinit: what is computed here follows the document's text alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from helpers import caches

from distinit.schemas.manifest import CACHE_FORMAT_VERSION
from distinit.schemas.tables import CONFIDENCE_SCHEMA, FRAMES_SCHEMA, PLAN_SCHEMA, VIDEOS_SCHEMA

DOCUMENT = Path(__file__).parents[3] / "docs/cache-format.md"
SAVE = """
import sys
import numpy
numpy.savez(sys.argv[1], row=confident["row"], video=confident["video_id"].to_pylist(),
            frame=confident["frame_index"], entropy=confident["entropy_nats"], targets=targets)
assert not [name for name in sys.modules if name.startswith("distinit")]
"""


def test_the_example_reads_what_was_written(built_cache: Path, tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert example is not None
    script = tmp_path / "example.py"
    script.write_text(example[1] + SAVE)
    command = [sys.executable, str(script), str(tmp_path / "read.npz")]
    subprocess.run(command, cwd=built_cache, check=True)
    read = np.load(tmp_path / "read.npz")
    assert 0 < len(read["row"]) < 279  # some of the rows, not all
    assert (read["entropy"] <= 1.0).all()
    alpha = caches.make_teacher("alpha")
    for video, frame, targets in zip(read["video"], read["frame"], read["targets"], strict=True):
        expected = caches.logits_of(video, alpha, np.array([frame]))[0]
        np.testing.assert_array_equal(targets, expected.astype(np.float16))


def test_the_document_names_every_column() -> None:
    text = DOCUMENT.read_text()
    schemas: tuple[pa.Schema, ...] = (VIDEOS_SCHEMA, FRAMES_SCHEMA, CONFIDENCE_SCHEMA, PLAN_SCHEMA)
    missing = [name for schema in schemas for name in schema.names if f"`{name}`" not in text]
    assert missing == []


def column_bytes(values: Sequence[Any], kind: str) -> bytes:
    """As the document says; ``kind`` is struct's letter, or "text"."""
    if kind == "text":
        texts = [text.encode() for text in values]
        return struct.pack(f"<{len(texts)}q", *map(len, texts)) + b"".join(texts)
    return struct.pack(f"<{len(values)}{kind}", *values)


def canonical(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def unit_digest(
    frames: dict[str, tuple[str, Sequence[Any]]],
    confidence: dict[str, tuple[str, Sequence[Any]]],
    arrays: dict[str, tuple[str, int, bytes]],
    rows: int,
) -> str:
    sha = hashlib.sha256()
    for label, table in (("frames", frames), ("confidence", confidence)):
        for name, (kind, values) in table.items():
            sha.update(f"{label}.{name}:{rows}:".encode() + column_bytes(values, kind))
    for name, (dtype, width, data) in sorted(arrays.items()):
        sha.update(f"{name}:{dtype}:{rows}x{width}:".encode() + data)
    return sha.hexdigest()


def stated(name: str) -> str:
    found = re.search(rf"^    {name} +([0-9a-f]{{64}})$", DOCUMENT.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_worked_example_is_what_the_recipe_gives() -> None:
    frames: dict[str, tuple[str, Sequence[Any]]] = {
        "row": ("q", [0, 2]),
        "video_id": ("text", ["ab", "ab"]),
        "frame_index": ("q", [0, 1]),
        "pts": ("q", [0, 512]),
        "time_base": ("text", ["1/25", "1/25"]),
        "perceptual_hash": ("Q", [1, 2**64 - 1]),
    }
    logits = ("<f2", 1, struct.pack("<2e", 1.5, -2.0))
    unit = unit_digest(frames, {"row": ("q", [0, 2])}, {"logits": logits}, 2)
    video = {
        "video_id": "ab",
        "digest": "a" * 64,
        "status": "ok",
        "frame_count": 2,
        "width": 8,
        "height": 6,
        "in_corpus": True,
    }
    teacher = {"fingerprint": "0" * 64, "encoding": "float16", "units": {"0": unit}}
    content = {
        "format_version": CACHE_FORMAT_VERSION,
        "sampling": {"fps": None, "mode": "all", "per_video": None, "stride": 1},
        "capacity": 64,
        "videos": [video],
        "teachers": {"t": teacher},
    }
    assert stated("content_sha256") == unit
    assert stated("corpus.digest") == canonical(["a" * 64])
    assert stated("content_digest") == canonical(content)


KINDS = {pa.int64(): "q", pa.int32(): "i", pa.uint64(): "Q", pa.float32(): "f", pa.float64(): "d"}
KINDS |= {pa.bool_(): "?", pa.string(): "text"}


def columns_of(table: pa.Table) -> dict[str, tuple[str, Sequence[Any]]]:
    return {
        field.name: (KINDS[field.type], table.column(field.name).to_pylist())
        for field in table.schema
    }


def test_the_recipes_give_every_digest_of_a_real_cache(built_cache: Path) -> None:
    manifest = json.loads((built_cache / "manifest.json").read_text())
    plan = pq.read_table(built_cache / "plan.parquet")
    sizes = [plan.schema.metadata[key].decode() for key in (b"capacity", b"base_videos")]
    sha = hashlib.sha256(f"distinit plan {' '.join(sizes)}".encode())
    for name, (kind, values) in columns_of(plan).items():
        sha.update(f"{name}:{plan.num_rows}:".encode() + column_bytes(values, kind))
    assert manifest["plan"]["digest"] == sha.hexdigest()
    videos = pq.read_table(built_cache / "videos.parquet").to_pylist()
    assert manifest["corpus"]["digest"] == canonical(sorted(v["digest"] for v in videos))
    teachers: dict[str, Any] = {}
    for name, summary in manifest["teachers"].items():
        record = json.loads((built_cache / f"teachers/{name}/teacher.json").read_text())
        assert summary["record_sha256"] == canonical(record | {"fidelity": None})
        identity = {key: value for key, value in record["identity"].items() if key != "probe"}
        assert identity["preprocessing"].pop("flip") is False
        assert summary["fingerprint"] == canonical(identity)
        units = {
            str(unit): real_unit_digest(built_cache, name, unit, manifest["row_space"]["capacity"])
            for unit in range(manifest["row_space"]["units"])
        }
        for unit, digest in units.items():
            commit = built_cache / f"teachers/{name}/commits/unit-{int(unit):05}.json"
            assert json.loads(commit.read_text())["content_sha256"] == digest
        fields = {key: summary[key] for key in ("fingerprint", "encoding")}
        teachers[name] = fields | {"units": units}
    kept = ("video_id", "digest", "status", "frame_count", "width", "height", "in_corpus")
    content = {
        "format_version": manifest["format_version"],
        "sampling": manifest["sampling"],
        "capacity": manifest["row_space"]["capacity"],
        "videos": [{key: video[key] for key in kept} for video in videos],
        "teachers": teachers,
    }
    assert manifest["content_digest"] == canonical(content)


def real_unit_digest(root: Path, teacher: str, unit: int, capacity: int) -> str:
    frames = pq.read_table(root / f"frames/unit-{unit:05}.parquet")
    confidence = pq.read_table(root / f"teachers/{teacher}/confidence/unit-{unit:05}.parquet")
    rows = frames.column("row").to_pylist()
    arrays = {}
    for folder in sorted(root.glob(f"teachers/{teacher}/*/zarr.json")):
        array = zarr.open_array(folder.parent, mode="r")
        values = np.asarray(array[unit * capacity : (unit + 1) * capacity])
        used = values[np.array(rows, np.int64) - unit * capacity]
        arrays[folder.parent.name] = (values.dtype.str, values.shape[1], used.tobytes())
    return unit_digest(columns_of(frames), columns_of(confidence), arrays, len(rows))
