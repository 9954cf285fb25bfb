"""``distinit cache verify``: verdicts, exit codes, the expected digest, and repair."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from distinit.cli import main
from distinit.schemas.errors import ConfigError
from distinit.schemas.extract import ExtractConfig
from distinit.stages.cache_verify import cache_verify
from distinit.stages.extract import ExtractResult, extract

SHARD = "teachers/null/logits/c/1/0"


def run(corpus: Path, cache: Path) -> ExtractResult:
    values = {
        "videos": str(corpus),
        "teachers": [{"name": "null", "id": name} for name in ("null", "other")],
        "cache": str(cache),
        "frames": str(cache.with_name("frames")),
        "unit_rows": 64,
    }
    return extract(ExtractConfig.model_validate(values))


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("done")
    return out, run(corpus, out / "cache").content_digest


@pytest.fixture
def cache(done: tuple[Path, str], tmp_path: Path) -> Path:
    shutil.copytree(done[0], tmp_path / "copy")
    return tmp_path / "copy" / "cache"


def verify(cache: Path, *options: str) -> tuple[int, str]:
    ended = CliRunner().invoke(main, ["cache", "verify", str(cache), *options])
    return ended.exit_code, ended.stdout


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def test_an_intact_cache_is_ok_and_its_digest_is_printed(
    cache: Path, done: tuple[Path, str]
) -> None:
    code, text = verify(cache)
    assert code == 0
    assert text.splitlines()[0].startswith("ok: ")
    assert text.splitlines()[1] == f"  digest    {done[1]}"
    assert verify(cache, "--expect", done[1])[0] == 0


@pytest.mark.parametrize("options", [(), ("--quick",)])
def test_an_unexpected_digest_gives_exit_code_1_and_prints_both(
    cache: Path, done: tuple[Path, str], options: tuple[str, ...]
) -> None:
    code, text = verify(cache, "--expect", "0" * 64, *options)
    assert code == 1
    assert text.startswith("ANOTHER CACHE: ")
    assert f"  digest    {done[1]}\n  expected  {'0' * 64}\n" in text
    result = cache_verify(cache, deep=not options, expect="0" * 64)
    assert (result.ok, result.problems, result.complete) == (False, (), True)


def test_an_expected_digest_that_is_not_a_digest_is_refused(cache: Path) -> None:
    with pytest.raises(ConfigError, match="not a content digest"):
        cache_verify(cache, deep=False, expect="sha256:abc")


def test_a_damaged_cache_gives_exit_code_1(cache: Path) -> None:
    flip(cache / SHARD)
    code, text = verify(cache)
    assert code == 1
    assert text.startswith("DAMAGED: ")
    assert SHARD in text
    assert "  damaged     unit 1 of teacher null" in text
    command = f"distinit extract --repair --videos VIDEOS --teacher null --cache {cache}"
    assert f"this extracts only the damaged units again:\n         {command}" in text
    assert verify(cache, "--quick")[0] == 0  # the size is unchanged


def test_an_incomplete_cache_gives_exit_code_3(cache: Path, done: tuple[Path, str]) -> None:
    path = cache / "manifest.json"
    manifest = json.loads(path.read_text()) | {"complete": False, "content_digest": ""}
    path.write_text(json.dumps(manifest))
    (cache / "manifest-sha256.txt").unlink()
    for options in ((), ("--quick",), ("--expect", done[1])):
        code, text = verify(cache, *options)
        assert code == 3
        assert text.startswith("INCOMPLETE: ")
        assert "rerun the same `distinit extract`" in text


def test_after_repair_the_same_extraction_restores_the_cache(
    cache: Path, corpus: Path, done: tuple[Path, str]
) -> None:
    """Flipped bits do not change the size of a file, which is all that ``extract`` checks."""
    before = {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()}
    flip(cache / SHARD)
    flip(cache / "frames/unit-00002.parquet")
    result = cache_verify(cache, deep=True, repair=True)
    assert result.returned_units == (
        "unit 1 of teacher null",
        "unit 2 of teacher null",
        "unit 2 of teacher other",
    )
    assert (result.exit_code, result.complete, result.ok) == (3, False, False)
    assert result.notes == (), "the repair itself must not be reported as another writer"
    assert "repair: rerun the same `distinit extract` to extract these units again:" in (
        result.summary()
    )
    assert verify(cache)[0] == 3
    assert run(corpus, cache).content_digest == done[1]
    assert {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()} == before
    assert verify(cache, "--expect", done[1])[0] == 0


def test_repairing_an_intact_cache_changes_nothing(cache: Path) -> None:
    before = {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()}
    assert verify(cache, "--repair")[0] == 0
    assert {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()} == before


def test_repair_and_quick_exclude_each_other(cache: Path) -> None:
    ended = CliRunner().invoke(main, ["cache", "verify", str(cache), "--repair", "--quick"])
    assert ended.exit_code == 2


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        (SHARD, 1000),
        (SHARD, None),
        ("teachers/null/confidence/unit-00001.parquet", None),
        ("frames/unit-00001.parquet", None),
        ("frames/unit-00001.parquet", 300),
        ("teachers/null/commits/unit-00001.json", 200),
        ("teachers/null/commits/unit-00001.json", None),
        ("plan.parquet", 300),
        ("plan.parquet", None),
        ("teachers/other/teacher.json", 100),
        ("teachers/other/logits/zarr.json", None),
        ("videos.parquet", 100),
    ],
)
def test_the_same_extraction_restores_missing_and_truncated_files(
    cache: Path, corpus: Path, done: tuple[Path, str], name: str, keep: int | None
) -> None:
    before = {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()}
    path = cache / name
    data: Any = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(data[:keep])
    assert verify(cache, "--quick")[0] == 1
    assert run(corpus, cache).content_digest == done[1]
    assert {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()} == before
