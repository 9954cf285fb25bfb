"""A reader that is written from docs/cache-format.md alone reads what distinit wrote.

It reads the golden cache, which has every encoding, features, a failed video, a video that spans
two units, and one that was gone when later teachers were added; and a cache written just now.
"""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import plain_reader
from helpers.golden import GOLDEN
from helpers.plain_reader import PlainCache, RefusedError, crc32c, record_sha256

from distinit.pipeline.cache.reader import TargetCache

LOCATION = ("path", "size_bytes", "mtime_ns", "in_corpus")


@pytest.fixture(params=["golden", "fresh"])
def root(request: pytest.FixtureRequest, built_cache: Path) -> Path:
    return GOLDEN if request.param == "golden" else built_cache


def test_the_reader_imports_pyarrow_and_the_standard_library_only() -> None:
    tree = ast.parse(Path(plain_reader.__file__).read_text())
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    outside = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert outside == {"pyarrow"}


def test_crc32c_is_the_published_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_it_reads_the_targets_that_distinit_reads(root: Path) -> None:
    plain, cache = PlainCache(root), TargetCache.open(root)
    for teacher, record in cache.teachers.items():
        targets = cache.targets(teacher)
        found: dict[str, dict[int, list[float]]] = {}
        for video, frame, values in plain.targets(teacher):
            found.setdefault(video, {})[frame] = values
        assert sorted(found) == list(targets.video_ids)
        for video, frames in found.items():
            expected = targets.of(video)
            assert list(frames) == expected.frame_N.tolist()
            values_NC = np.array(list(frames.values()), np.float32)
            if record.encoding.startswith("topk"):  # logarithms differ in the last bit
                np.testing.assert_allclose(values_NC, expected.logits_NC, rtol=1e-6)
            else:
                np.testing.assert_array_equal(values_NC, expected.logits_NC)


def test_it_computes_every_digest(root: Path) -> None:
    plain = PlainCache(root)
    manifest = plain.manifest
    assert manifest["corpus"]["digest"] == plain.corpus_digest()
    assert manifest["plan"]["digest"] == plain.plan_digest()
    assert manifest["plan"]["rows_digest"] == plain.plan_digest(left_out=LOCATION)
    for teacher, summary in manifest["teachers"].items():
        assert summary["fingerprint"] == plain.fingerprint(teacher)
        assert summary["record_sha256"] == plain.teacher_digest(teacher)
        for unit in plain.units:
            text = plain.commit_text(teacher, unit)
            commit = json.loads(text)
            assert commit["record_sha256"] == record_sha256(text)
            assert commit["content_sha256"] == plain.unit_digest(teacher, unit)
            for name, entry in commit["files"].items():
                data = (root / name).read_bytes()
                found = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                assert entry == found
    assert manifest["content_digest"] == plain.content_digest()


def test_it_finds_a_flipped_bit(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "cache"))
    shard = root / "teachers/half/logits/c/1/0"
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(RefusedError, match="chunk 0"):
        list(PlainCache(root).targets("half"))


def test_it_refuses_a_newer_major_version(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "cache"))
    manifest = json.loads((root / "manifest.json").read_text()) | {"format_version": 3}
    (root / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RefusedError, match="version"):
        PlainCache(root)
