"""Commands that make caches, killed at any moment: never taken for whole, and continued."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.caches import run_all
from helpers.command_line import run_command
from helpers.derived_caches import ALL_TEACHERS, assert_valid, part
from helpers.killing import interrupt_at, kill_at

from distinit.pipeline.cache.reader import TargetCache
from distinit.schemas.errors import DistInitError

COMMAND = ["cache", "merge", "a", "b", "--out", "out", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("killed")
    run_all(root / "a", part("abc"), ALL_TEACHERS)
    run_all(root / "b", part(["d", "e", "bad"]), ALL_TEACHERS)
    run_all(root / "whole", part(["a", "b", "c", "d", "e", "bad"]), ALL_TEACHERS)
    return root


@pytest.mark.parametrize(
    ("pattern", "moment"),
    [
        ("plan.parquet", "after"),
        ("manifest.json", "after"),
        ("teacher.json", "after"),
        ("unit-00002.parquet", "after"),
        ("unit-00002.json", "before"),
        ("unit-00003.json", "after"),
        ("videos.parquet", "after"),
        ("README.md", "before"),
        ("manifest-sha256.txt", "before"),
    ],
)
def test_a_killed_merge_is_continued(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, moment: str
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(folder / name)
    assert moment in ("before", "after")
    kill_at(pattern, "before" if moment == "before" else "after", COMMAND, tmp_path)
    if pattern not in ("README.md", "manifest-sha256.txt"):  # those follow a whole manifest
        with pytest.raises(DistInitError):
            TargetCache.open(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    code, shown = run_command(COMMAND)
    assert code == 0, shown
    whole = TargetCache.open(folder / "whole").manifest.content_digest
    assert assert_valid(tmp_path / "out") == whole


def test_ctrl_c_says_what_is_kept_and_the_same_command_continues(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(folder / name)
    code, shown = interrupt_at("unit-00002.json", COMMAND, tmp_path)
    assert (code, shown) == (
        130,
        "stopped; finished units of --out are kept, and without the others it does not count as a "
        "cache; rerun the same command to verify the sources again and continue\n",
    )
    first = (tmp_path / "out/frames/unit-00001.parquet").stat().st_mtime_ns
    monkeypatch.chdir(tmp_path)
    assert run_command(COMMAND)[0] == 0
    assert (tmp_path / "out/frames/unit-00001.parquet").stat().st_mtime_ns == first
    whole = TargetCache.open(folder / "whole").manifest.content_digest
    assert assert_valid(tmp_path / "out") == whole
