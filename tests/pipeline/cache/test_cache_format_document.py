"""docs/cache-format.md: its examples read real caches without distinit; it names every key.

test_independent_reader.py tests that the rest of the document suffices to write a reader.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import caches
from helpers.golden import CORPUS, FIRST, GOLDEN
from helpers.plain_reader import canonical, unit_digest

from distinit.schemas.base import Record
from distinit.schemas.manifest import (
    CACHE_FORMAT_VERSION,
    CacheManifest,
    CorpusSummary,
    PlanSummary,
    RowSpace,
    UnitCommit,
)
from distinit.schemas.tables import CONFIDENCE_SCHEMA, FRAMES_SCHEMA, PLAN_SCHEMA, VIDEOS_SCHEMA
from distinit.schemas.teacher import TeacherRecord

DOCUMENT = Path(__file__).parents[3] / "docs/cache-format.md"
SAVE = """
import sys
import numpy
found = confident if "confident" in globals() else frames
names = {"row": "row", "video": "video_id", "frame": "frame_index", "entropy": "entropy_nats"}
columns = {key: numpy.asarray(found[name]) for key, name in names.items()}
columns["video"] = columns["video"].astype(str)
numpy.savez(sys.argv[1], targets=targets, **columns)
assert not [name for name in sys.modules if name.startswith("distinit")]
"""


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def read_with(example: str, root: Path, out: Path) -> dict[str, Any]:
    """What the lines of an example read from the cache in ``root``, in a process of its own."""
    script = out / "example.py"
    script.write_text(example + SAVE)
    command = [sys.executable, str(script), str(out / "read.npz")]
    subprocess.run(command, cwd=root, check=True)
    return dict(np.load(out / "read.npz"))


def check(read: dict[str, Any], teacher: TeacherRecord) -> None:
    """Every target that was read is the one that was written for its video and frame."""
    for video, frame, targets in zip(read["video"], read["frame"], read["targets"], strict=True):
        expected = caches.logits_of(video, teacher, np.array([frame]))[0]
        np.testing.assert_array_equal(targets, expected.astype(np.float16))


@pytest.mark.parametrize("kind", ["golden", "fresh"])
@pytest.mark.parametrize("library", ["pyarrow", "duckdb"])
def test_five_lines_read_a_cache(
    library: str, kind: str, built_cache: Path, tmp_path: Path
) -> None:
    (example,) = [text for text in examples()[:2] if f"import {library}" in text]
    assert len([line for line in example.splitlines() if line]) == 5
    root, teacher, rows = GOLDEN, FIRST, 75
    if kind == "fresh":
        root, teacher, rows = built_cache, caches.make_teacher("alpha"), 279
        example = example.replace("half", "alpha")
    read = read_with(example, root, tmp_path)
    check(read, teacher)
    assert len(set(read["row"])) == len(read["row"])
    if library == "pyarrow":
        assert len(read["row"]) == rows
    else:
        assert 0 < len(read["row"]) < rows  # some of the rows, not all
        assert (read["entropy"] <= 1.0).all()


def test_the_example_that_checks_the_manifest_reads_a_cache(
    built_cache: Path, tmp_path: Path
) -> None:
    read = read_with(examples()[2], built_cache, tmp_path)
    check(read, caches.make_teacher("alpha"))
    assert 0 < len(read["row"]) < 279
    assert (read["entropy"] <= 1.0).all()


def test_the_example_that_checks_the_manifest_leaves_lost_videos_out(tmp_path: Path) -> None:
    example = examples()[2].replace('sorted(manifest["teachers"])[0]', '"half"')
    read = read_with(example.replace("<= 1.0", "<= 9.0"), GOLDEN, tmp_path)
    check(read, FIRST)
    assert set(read["video"]) == {CORPUS.id_of("short"), CORPUS.id_of("long")}
    assert len(read["row"]) == 73


def test_the_document_names_every_column() -> None:
    text = DOCUMENT.read_text()
    schemas: tuple[pa.Schema, ...] = (VIDEOS_SCHEMA, FRAMES_SCHEMA, CONFIDENCE_SCHEMA, PLAN_SCHEMA)
    missing = [name for schema in schemas for name in schema.names if f"`{name}`" not in text]
    assert missing == []


@pytest.mark.parametrize("record", [CacheManifest, CorpusSummary, RowSpace, PlanSummary])
def test_the_document_names_every_key_of_the_manifest(record: type[Record]) -> None:
    text = DOCUMENT.read_text()
    assert [name for name in record.model_fields if f"`{name}`" not in text] == []


@pytest.mark.parametrize("record", [UnitCommit, TeacherRecord])
def test_the_document_names_every_key_of_the_other_records(record: type[Record]) -> None:
    text = DOCUMENT.read_text()
    assert [name for name in record.model_fields if f"`{name}`" not in text] == []


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
