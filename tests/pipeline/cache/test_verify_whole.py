"""What is checked of a cache as a whole: checksums, sums, cards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.caches import resign

from distinit.pipeline.cache.verify import verify_cache


def lines_of(root: Path) -> list[bytes]:
    return (root / "manifest-sha256.txt").read_bytes().splitlines(keepends=True)


FOREIGN = "manifest-sha256.txt: has lines that `sha256sum` would not write"
OTHERS = "manifest-sha256.txt: does not list the files of the cache in order"


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: [line.replace(b"\n", b"\r\n") for line in lines], FOREIGN),
        (lambda lines: [lines[0].upper(), *lines[1:]], FOREIGN),
        (lambda lines: [*lines, b"\n"], FOREIGN),
        (lambda lines: [*lines[:-1], lines[-1].rstrip()], FOREIGN),
        (lambda lines: [lines[0].replace(b"  ", b" *"), *lines[1:]], FOREIGN),
        (lambda lines: [lines[1], lines[0], *lines[2:]], OTHERS),
        (lambda lines: [lines[0], *lines], OTHERS),
        (lambda lines: lines[1:], OTHERS),
        (lambda lines: [*lines, b"0" * 64 + b"  zzz\n"], OTHERS),
    ],
)
def test_another_form_of_the_checksums_is_found(
    cache_root: Path,
    change: Callable[[list[bytes]], list[bytes]],
    problem: str,
    deep: bool,
) -> None:
    (cache_root / "manifest-sha256.txt").write_bytes(b"".join(change(lines_of(cache_root))))
    assert verify_cache(cache_root, deep=deep).problems == (problem,)


@pytest.mark.parametrize("deep", [False, True])
def test_missing_checksums_are_found(cache_root: Path, deep: bool) -> None:
    (cache_root / "manifest-sha256.txt").unlink()
    assert verify_cache(cache_root, deep=deep).problems == ("manifest-sha256.txt: missing",)


def test_a_fidelity_that_the_commits_do_not_give_is_found(cache_root: Path) -> None:
    path = cache_root / "teachers/alpha/teacher.json"
    record = json.loads(path.read_text())
    record["fidelity"]["mean_kl_nats"] *= 2
    path.write_text(json.dumps(record))
    resign(cache_root)
    assert verify_cache(cache_root, deep=False).problems == (
        "teachers/alpha/teacher.json: its fidelity is not that of the commits",
        "README.md: differs from what the records give",
    )


def test_teachers_that_disagree_on_a_video_are_found(cache_root: Path) -> None:
    path = cache_root / "teachers/beta/commits/unit-00000.json"
    commit = json.loads(path.read_text())
    commit["videos"][0]["duration_seconds"] += 1
    path.write_text(json.dumps(commit))
    resign(cache_root)
    problems = verify_cache(cache_root, deep=False).problems
    assert "unit-00000 of beta: rows or videos differ from those of alpha" in problems


def test_a_unit_that_decides_other_videos_is_found(cache_root: Path) -> None:
    for teacher in ("alpha", "beta"):
        path = cache_root / f"teachers/{teacher}/commits/unit-00000.json"
        commit = json.loads(path.read_text())
        commit["videos"].append(commit["videos"][0])
        path.write_text(json.dumps(commit))
    resign(cache_root)
    problems = verify_cache(cache_root, deep=False).problems
    assert "unit-00000 of alpha: its videos are not those of the plan" in problems


@pytest.mark.parametrize("name", ["README.md", "croissant.json"])
def test_an_edited_and_signed_card_is_found(cache_root: Path, name: str) -> None:
    with (cache_root / name).open("a") as file:
        file.write("Trust me.\n")
    resign(cache_root)
    problem = f"{name}: differs from what the records give"
    assert verify_cache(cache_root, deep=False).problems == (problem,)


def test_doubled_rows_of_videos_are_found(cache_root: Path) -> None:
    path = cache_root / "videos.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)
    resign(cache_root)
    problems = verify_cache(cache_root, deep=False).problems
    assert "videos.parquet: contradicts the commit records" in problems
